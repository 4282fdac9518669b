// One student in one class as the page knows them: read once, then read again when something of theirs moved.
import { signal } from "@preact/signals";
import { ask, Refusal } from "./api";
import type { Phase } from "./classroom";
import type { Flag } from "./risk";
import {
  RiskChanges,
  Scores,
  type ScoresQuery,
  StudentFlags,
  StudentMastery,
  StudentPage,
  type StudentPageQuery,
  Timeline,
  type TimelineQuery,
} from "./generated/documents";
import { asOf, clockZone, follow, lagMs, onReturn } from "./stream";
import { learn, loadTitles } from "./titles";

type Found = NonNullable<StudentPageQuery["student"]>;
export type Mastery = NonNullable<Found["mastery"]>["nodes"][number];
export type Work = NonNullable<Found["assignments"]>["nodes"][number];
export type Progress = NonNullable<Found["progress"]>;
export type Scored = NonNullable<NonNullable<ScoresQuery["student"]>["timeline"]>["nodes"][number];
export type Event = NonNullable<NonNullable<TimelineQuery["student"]>["timeline"]>["nodes"][number];

const READ_AGAIN_MS = 500; // after a change: a burst of changes is read once
const NEWS_MS = 8_000;

export class Student {
  readonly phase = signal<Phase>("loading");
  readonly problem = signal("");
  readonly name = signal<string | null>(null);
  readonly className = signal("");
  readonly zone = signal("UTC");
  readonly threshold = signal(0.8);
  readonly minEvidence = signal(3);
  readonly progress = signal<Progress | null>(null);
  readonly mastery = signal<Mastery[]>([]);
  readonly news = signal<ReadonlySet<string>>(new Set()); // concepts that have just changed
  readonly work = signal<Work[]>([]);
  readonly hasMoreWork = signal(false);
  readonly flags = signal<Flag[] | null>(null); // null: not for this viewer
  readonly scores = signal<Scored[]>([]);
  readonly timeline = signal<Event[]>([]);
  readonly hasOlder = signal(false);

  private older: string | null = null;
  private reading: ReturnType<typeof setTimeout> | undefined;
  private readonly ends: (() => void)[] = [];
  private isClosed = false;

  constructor(
    readonly classroom: string,
    readonly key: string,
  ) {
    this.listen();
    void this.load();
    void loadTitles(classroom);
  }

  close(): void {
    this.isClosed = true;
    clearTimeout(this.reading);
    this.ends.splice(0).forEach((end) => end());
  }

  async load(): Promise<void> {
    const of = { student: this.key, classroom: this.classroom };
    try {
      const [page, flags, scores] = await Promise.all([
        ask(StudentPage, of),
        ask(StudentFlags, of).catch(() => null),
        ask(Scores, of),
      ]);
      if (this.isClosed) return;
      const student = page.data.student;
      if (!student) {
        this.phase.value = "unknown";
        return;
      }
      const room = flags?.data.classroom;
      this.name.value = student.displayName;
      this.zone.value = clockZone.value = student.zone;
      this.className.value = room?.name ?? this.classroom;
      this.threshold.value = room?.policy?.masteryThreshold ?? 0.8;
      this.minEvidence.value = room?.policy?.minEvidence ?? 3;
      this.progress.value = student.progress;
      this.mastery.value = student.mastery?.nodes ?? [];
      learn(this.mastery.value.map((each) => each.concept));
      this.work.value = student.assignments?.nodes ?? [];
      this.hasMoreWork.value = student.assignments?.pageInfo.hasNextPage ?? false;
      this.flags.value = room?.riskFlags?.nodes ?? null;
      this.scores.value = scores.data.student?.timeline?.nodes ?? [];
      asOf.value = student.asOf;
      lagMs.value = student.lagMs;
      await this.loadNewest();
      this.problem.value = "";
      this.phase.value = "ready";
    } catch (problem) {
      this.fail(problem);
    }
  }

  /** The next older page of the timeline. */
  async loadOlder(): Promise<void> {
    const page = await this.page(this.older);
    if (!page) return;
    this.timeline.value = [...this.timeline.value, ...page.nodes];
    this.older = page.pageInfo.endCursor;
    this.hasOlder.value = page.pageInfo.hasNextPage;
  }

  /** Put what is newer than the timeline in front of it; pages already read stay. */
  private async loadNewest(): Promise<void> {
    const page = await this.page(null);
    if (!page) return;
    const seen = new Set(this.timeline.value.map((event) => event.id));
    if (seen.size === 0 || page.nodes.every((event) => !seen.has(event.id))) {
      this.timeline.value = page.nodes;
      this.older = page.pageInfo.endCursor;
      this.hasOlder.value = page.pageInfo.hasNextPage;
    } else {
      const ids = new Set(page.nodes.map((event) => event.id));
      this.timeline.value = [...page.nodes, ...this.timeline.value.filter((event) => !ids.has(event.id))];
    }
  }

  private async page(after: string | null) {
    const { data } = await ask(Timeline, { student: this.key, classroom: this.classroom, after });
    return data.student?.timeline ?? null;
  }

  private listen(): void {
    this.ends.push(
      follow(StudentMastery, { student: this.key }, (said) => said.masteryChanged, (message) => {
        if (message.kind !== "CHANGE" || message.mastery?.classroomId !== this.classroom) return;
        this.tell(message.mastery.concept.key);
        this.readSoon();
      }, () => this.readSoon()),
      follow(RiskChanges, { classroom: this.classroom }, (said) => said.riskFlagChanged, (message) => {
        if (message.transition?.studentId === this.key) this.readSoon();
      }, () => this.readSoon()),
      onReturn(() => this.readSoon()),
    );
  }

  private tell(concept: string): void {
    this.news.value = new Set([...this.news.value, concept]);
    setTimeout(() => {
      this.news.value = new Set([...this.news.value].filter((each) => each !== concept));
    }, NEWS_MS);
  }

  private readSoon(): void {
    this.reading ??= setTimeout(() => {
      this.reading = undefined;
      void this.load();
    }, READ_AGAIN_MS);
  }

  private fail(problem: unknown): void {
    const refusal = problem instanceof Refusal ? problem : new Refusal("INTERNAL", String(problem));
    this.problem.value = refusal.message + (refusal.errorId ? ` (error ${refusal.errorId})` : "");
    if (this.phase.value !== "ready") this.phase.value = refusal.code === "FORBIDDEN" ? "denied" : "away";
  }
}
