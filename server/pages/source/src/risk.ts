// Students at risk: what is known of each, and what one transition of one flag makes of it.
import type { ClassPageQuery, RiskChangesSubscription, StudentFlagsQuery } from "./generated/documents";

export type Severity = "LOW" | "MEDIUM" | "HIGH";
export const URGENCY: Record<Severity, number> = { HIGH: 3, MEDIUM: 2, LOW: 1 };

type Board = NonNullable<NonNullable<ClassPageQuery["classroom"]>["dashboard"]>;
export type Line = NonNullable<Board["atRisk"]>["nodes"][number];
type Explained = NonNullable<NonNullable<StudentFlagsQuery["classroom"]>["riskFlags"]>["nodes"][number];
/** Its evidence is read when somebody opens it: 50 students with all of it would cost a person's budget. */
export type Flag = Line["flags"][number] & { evidence?: Explained["evidence"] };
export type Transition = NonNullable<RiskChangesSubscription["riskFlagChanged"]["transition"]>;

export interface Change extends Transition {
  readAt: number; // epoch ms
  number: number;
}
/** One student at risk. `news` is what the newest change did, while it is fresh. */
export interface AtRiskStudent {
  id: string;
  name: string | null;
  severity: Severity;
  flags: Flag[];
  shown: Flag[]; // the flags, or those that have just been cleared
  news: "raised" | "added" | "worse" | "better" | "cleared" | null;
}

/** The line of a student after one transition of one flag: it names the state that it made, so twice is once. */
export function after(told: Transition, held: AtRiskStudent | undefined): AtRiskStudent {
  const others = held?.flags.filter((flag) => flag.reason !== told.reason) ?? [];
  const flags = told.severity ? [...others, flagOf(told, held)].sort(worstFirst) : others;
  return {
    id: told.studentId,
    name: told.student?.displayName ?? held?.name ?? null,
    severity: told.overall ?? held?.severity ?? "LOW",
    flags,
    shown: flags.length ? flags : (held?.shown ?? []),
    news: flags.length === 0 ? "cleared" : newsOf(told, others.length > 0),
  };
}

/** A line of the dashboard, without news. */
export function lineOf(line: Line): AtRiskStudent {
  const { studentId, severity, flags } = line;
  return { id: studentId, name: line.student?.displayName ?? null, severity, flags, shown: flags, news: null };
}

export function flagsText(severity: Severity, flags: readonly Pick<Flag, "reason" | "severity">[]): string {
  return `${severity} ${flags.map((flag) => `${flag.reason}:${flag.severity}`).sort().join(" ")}`;
}

function flagOf(told: Transition, held: AtRiskStudent | undefined): Flag {
  const before = held?.flags.find((flag) => flag.reason === told.reason);
  return {
    reason: told.reason,
    severity: told.severity ?? "LOW",
    raisedAt: before?.raisedAt ?? told.at,
    clearsWhen: told.clearsWhen,
    evidence: told.evidence,
  };
}

function newsOf(told: Transition, wasAtRisk: boolean): AtRiskStudent["news"] {
  if (told.change === "RAISED") return wasAtRisk ? "added" : "raised";
  if (told.change === "CLEARED") return "better";
  return URGENCY[told.severity ?? "LOW"] > URGENCY[told.earlier ?? "LOW"] ? "worse" : "better";
}

function worstFirst(a: Flag, b: Flag): number {
  return URGENCY[b.severity] - URGENCY[a.severity] || (a.reason < b.reason ? -1 : 1);
}

export function mostUrgentFirst(a: AtRiskStudent, b: AtRiskStudent): number {
  return URGENCY[b.severity] - URGENCY[a.severity] || b.flags.length - a.flags.length || (a.id < b.id ? -1 : 1);
}
