// Show the dashboard of a class once: npm run dashboard -- 7b
import { ask } from "./ask.js";
import { ClassDashboard } from "./generated.js";

const percent = (share: number | null): string => (share === null ? "none yet" : `${Math.round(share * 100)} %`);

const { classroom } = await ask(ClassDashboard, { classroom: process.argv[2] ?? "7b" });
if (!classroom) throw new Error("there is no such class that you may see"); // null, never an error: not yours looks the same
console.log(`${classroom.name}, as of ${classroom.asOf.time}, ${classroom.lagMs} ms behind`);
if (!classroom.dashboard) throw new Error("only the teachers of a class see its dashboard");

const { activeStudents, completionRate, averageScore, submissionRate, atRisk } = classroom.dashboard;
console.log(`${activeStudents} students: ${percent(completionRate)} completed, ${percent(submissionRate)} handed in`);
console.log(`average score ${percent(averageScore)}`);
for (const { studentId, student, severity, flags } of atRisk?.nodes ?? []) {
  console.log(`${severity} ${student?.displayName ?? studentId} (${studentId})`);
  for (const { reason, clearsWhen } of flags) console.log(`  ${reason}: ${clearsWhen}`);
}
