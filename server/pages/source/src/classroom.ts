// One class as the page knows it: read once, then moved by what the streams say; checked by reading again.
import { batch, computed, signal } from "@preact/signals";
import { type Answer, ask, Refusal } from "./api";
import {
  ActivityStream,
  AtRisk,
  Check,
  type CheckQuery,
  ClassMastery,
  ClassPage,
  type ClassPageQuery,
  Freshness,
  HeatMap,
  type HeatMapQuery,
  Rates,
  RiskChanges,
  StudentFlags,
} from "./generated/documents";
import { after, type AtRiskStudent, type Change, flagsText, type Line, lineOf, mostUrgentFirst, type Transition } from "./risk";
import { asOf, clockZone, connection, follow, lagMs, mark, onReturn } from "./stream";
import { learn, loadTitles, mention } from "./titles";

type Found = NonNullable<ClassPageQuery["classroom"]>;
type Board = NonNullable<Found["dashboard"]>;
type Checked = NonNullable<NonNullable<CheckQuery["classroom"]>["dashboard"]>;
export type Activity = NonNullable<Board["recentActivity"]>["nodes"][number];
export interface Cell {
  score: number | null;
  state: "NO_DATA" | "LOW_EVIDENCE" | "OK";
  evidence: number;
}
export interface Row {
  id: string;
  name: string | null;
  cells: Map<string, Cell>;
}
export interface Concept {
  key: string;
  name: string;
}
export interface Rates {
  completionRate: number | null;
  averageScore: number | null;
  submissionRate: number | null;
  activeStudents: number;
}

/** Where the streams stood when a reading was asked for. */
interface Asked {
  turn: number;
  changes: number;
  rates: Rates | null;
}

const NEWS_MS = 12_000; // a change is shown as one for so long
const CHANGES_MAX = 50;
const ACTIVITY_MAX = 60;
const LATELY_MAX = 20; // as many as a reading brings itself
const PAGES_MAX = 25; // of 200 students: the largest class that a heat map is drawn of
const READY_MS_MAX = 300; // a page that cannot hear yet shows what is, and reads it again once it can
const PAINT_MS = 250; // streams are drawn at most so often, however many messages come
const LOOK_MS = 10_000;
const CHECK_AGAIN_MS = 1_500;
const CHECKS_MAX = 4;

export type Phase = "loading" | "ready" | "unknown" | "denied" | "away";

/** The live state of one class. `close` ends its streams. */
export class Classroom {
  readonly phase = signal<Phase>("loading");
  readonly problem = signal("");
  readonly name = signal("");
  readonly zone = signal("UTC");
  readonly rates = signal<Rates | null>(null);
  readonly atRisk = signal<AtRiskStudent[]>([]);
  readonly hasMoreAtRisk = signal(false);
  readonly changes = signal<Change[]>([]);
  readonly activity = signal<Activity[]>([]);
  readonly activityPerMinute = signal(0);
  readonly concepts = signal<Concept[]>([]);
  readonly rows = signal<Row[]>([]);
  readonly rowsAreWhole = signal(false);
  readonly masteryThreshold = signal(0.8);
  readonly minEvidence = signal(3);
  readonly isHeld = signal(false); // somebody is inside the list of students at risk: its order stands still
  readonly isEmpty = computed(() => this.rates.value?.activeStudents === 0);

  private readonly students = new Map<string, AtRiskStudent>();
  private readonly byStudent = new Map<string, Row>();
  private readonly names = new Map<string, string>();
  private readonly recordedAt: number[] = [];
  private readonly ends: (() => void)[] = [];
  private endOfAtRisk: string | null = null;
  private waiting: Activity[] = [];
  private painting: ReturnType<typeof setTimeout> | undefined;
  private dirty = new Set<"risk" | "rows" | "activity">();
  private changeCount = 0;
  private isClosed = false;
  private lately: Activity[] = []; // the last ones heard: an answer that was read before they happened lacks them
  private readonly heardCells = new Map<string, Cell | null>(); // since the rows were asked for: what is heard is newer
  private heardRates: Rates | null = null;
  private turns = 0; // readings that were asked for
  private taken = 0; // the newest of them that is shown
  private opening: ReturnType<typeof setTimeout> | undefined;
  private readonly unready = new Set(["risk", "activity"]); // streams of happenings: they bring no snapshot themselves

  constructor(readonly key: string) {
    // Streams first, then the snapshot: a change between the two is heard, and the snapshot already shows it or not.
    this.listen();
    this.opening = setTimeout(() => void this.load(), READY_MS_MAX);
    const look = setInterval(() => void this.look(), LOOK_MS);
    this.ends.push(
      () => clearInterval(look),
      onReturn(() => void this.prove()),
    );
  }

  close(): void {
    this.isClosed = true;
    clearTimeout(this.painting);
    clearTimeout(this.opening);
    this.ends.splice(0).forEach((end) => end());
  }

  /** Read everything again; what is shown stays until the answer is there, and what is heard meanwhile holds. */
  async load(withRows = true): Promise<void> {
    const asked: Asked = { turn: ++this.turns, changes: this.changeCount, rates: this.heardRates };
    try {
      const { data, refusals } = await ask(ClassPage, { classroom: this.key });
      if (this.isClosed || asked.turn < this.taken) return;
      if (!data.classroom) {
        this.phase.value = refusals.some((each) => each.code === "FORBIDDEN") ? "denied" : "unknown";
        return;
      }
      if (!data.classroom.dashboard) {
        this.phase.value = "denied";
        return;
      }
      this.take(data.classroom, data.classroom.dashboard, asked);
      if (withRows) void this.loadRows();
      void loadTitles(this.key);
    } catch (problem) {
      this.fail(problem);
    }
  }

  /** The next students at risk, behind those on the page. */
  async loadMoreAtRisk(): Promise<void> {
    const { data } = await ask(AtRisk, { classroom: this.key, after: this.endOfAtRisk });
    const page = data.classroom?.dashboard?.atRisk;
    if (!page) return;
    page.nodes.filter((line) => !this.students.has(line.studentId)).forEach((line) => this.put(line));
    this.endOfAtRisk = page.pageInfo.endCursor;
    this.hasMoreAtRisk.value = page.pageInfo.hasNextPage;
    this.paint("risk", 0);
  }

  /** Read the evidence of a student's flags, where it is not there yet. */
  async explain(id: string): Promise<void> {
    if (this.students.get(id)?.flags.every((flag) => flag.evidence)) return;
    const { data } = await ask(StudentFlags, { classroom: this.key, student: id });
    const found = new Map(data.classroom?.riskFlags?.nodes.map((flag) => [flag.reason, flag]));
    const student = this.students.get(id);
    if (!student) return;
    const flags = student.flags.map((flag) => ({ ...flag, ...found.get(flag.reason) }));
    this.students.set(id, { ...student, flags, shown: flags.length ? flags : student.shown });
    this.paint("risk", 0);
  }

  /** The order may move again. */
  release(): void {
    this.isHeld.value = false;
    this.paint("risk", 0);
  }

  private take(found: Found, board: Board, asked: Asked): void {
    this.taken = asked.turn;
    batch(() => {
      this.name.value = found.name;
      this.zone.value = clockZone.value = found.zone;
      this.masteryThreshold.value = found.policy?.masteryThreshold ?? 0.8;
      this.minEvidence.value = found.policy?.minEvidence ?? 3;
      this.concepts.value = found.concepts?.nodes ?? [];
      learn(this.concepts.value);
      this.rates.value = this.heardRates === asked.rates ? board : this.heardRates;
      this.students.clear();
      board.atRisk?.nodes.forEach((line) => this.put(line));
      this.endOfAtRisk = board.atRisk?.pageInfo.endCursor ?? null;
      this.hasMoreAtRisk.value = board.atRisk?.pageInfo.hasNextPage ?? false;
      this.activity.value = board.recentActivity?.nodes ?? [];
      this.waiting = [...this.lately];
      asOf.value = found.asOf;
      lagMs.value = found.lagMs;
      this.problem.value = "";
      this.phase.value = "ready";
    });
    // They name the state that they made, so one that the answer holds already is no harm.
    const meanwhile = this.changes.value.filter((each) => each.number > asked.changes);
    meanwhile.reverse().forEach((each) => this.apply(each));
    if (this.changeCount - asked.changes > CHANGES_MAX) void this.load(false);
    this.draw("risk");
    this.draw("activity");
  }

  private async loadRows(): Promise<void> {
    let after: string | null = null;
    const found = new Set<string>();
    this.heardCells.clear();
    for (let page = 0; page < PAGES_MAX; page++) {
      const answer: Answer<HeatMapQuery> = await ask(HeatMap, { classroom: this.key, after });
      const mastery = answer.data.classroom?.mastery;
      if (this.isClosed || !mastery) return;
      for (const { studentId, displayName, mastery: cells } of mastery.nodes) {
        const row = this.rowOf(studentId, displayName);
        found.add(studentId);
        for (const each of cells) {
          const heard = this.heardCells.get(`${studentId} ${each.concept.key}`);
          if (heard !== null) row.cells.set(each.concept.key, heard ?? cellOf(each));
        }
      }
      this.paint("rows", 0);
      after = mastery.pageInfo.endCursor;
      if (!mastery.pageInfo.hasNextPage) break;
    }
    for (const id of this.byStudent.keys()) if (!found.has(id)) this.byStudent.delete(id);
    this.rowsAreWhole.value = true;
    this.paint("rows", 0);
  }

  private listen(): void {
    const variables = { classroom: this.key };
    const lost = (why: "resync" | "refused"): void => {
      if (why === "resync") void this.load();
      else void this.judge();
    };
    this.ends.push(
      follow(RiskChanges, variables, (said) => said.riskFlagChanged, (message) => {
        if (message.kind === "READY") this.ready("risk");
        if (message.transition) this.change(message.transition);
      }, lost),
      follow(Rates, variables, (said) => said.dashboardChanged, (message) => {
        if (!message.dashboard) return;
        this.heardRates = message.dashboard;
        if (this.phase.value === "ready") this.rates.value = message.dashboard;
      }, lost),
      follow(ActivityStream, variables, (said) => said.eventRecorded, (message) => {
        if (message.kind === "READY") this.ready("activity");
        if (message.activity) this.hear(message.activity);
      }, lost),
      follow(ClassMastery, variables, (said) => said.masteryChanged, (message) => {
        if (!message.mastery || !message.studentId) return;
        const { concept } = message.mastery;
        const cell = message.mastery.state === "NO_DATA" ? null : cellOf(message.mastery);
        this.heardCells.set(`${message.studentId} ${concept.key}`, cell);
        const cells = this.byStudent.get(message.studentId)?.cells;
        if (cell === null) cells?.delete(concept.key);
        else cells?.set(concept.key, cell);
        if (!this.concepts.value.some((each) => each.key === concept.key)) {
          this.concepts.value = [...this.concepts.value, concept].sort((a, b) => (a.key < b.key ? -1 : 1));
          learn([concept]);
        }
        this.paint("rows");
      }, lost),
    );
  }

  /** From here on it is heard; what is read after both have said so misses nothing. */
  private ready(stream: string): void {
    if (!this.unready.delete(stream) || this.unready.size > 0) return;
    clearTimeout(this.opening);
    void this.load(this.turns === 0);
  }

  /** A stream was refused for good: either the class is no longer the viewer's, or only its news are. */
  private async judge(): Promise<void> {
    await this.load();
    if (this.phase.value === "ready") this.problem.value = "Live updates were refused.";
  }

  /** One transition of one flag, told and shown. */
  private change(told: Transition): void {
    this.apply(told);
    const entry: Change = { ...told, readAt: Date.now(), number: ++this.changeCount };
    this.changes.value = [entry, ...this.changes.value].slice(0, CHANGES_MAX);
    this.paint("risk");
  }

  /** The student's line changes where it stands, and says what happened. */
  private apply(told: Transition): void {
    const held = this.students.get(told.studentId);
    const student = after(told, held);
    if (held || student.flags.length) this.students.set(told.studentId, student);
    setTimeout(() => {
      if (this.students.get(student.id) !== student) return;
      if (student.news === "cleared") this.students.delete(student.id);
      else this.students.set(student.id, { ...student, news: null });
      this.paint("risk", 0);
    }, NEWS_MS);
  }

  private hear(activity: Activity): void {
    const now = Date.now();
    this.recordedAt.push(now);
    mention(activity.event.assignmentId);
    if (this.recordedAt.length > 20_000) this.recordedAt.splice(0, 10_000);
    this.lately.push(activity);
    if (this.lately.length > LATELY_MAX) this.lately.shift();
    this.waiting.push(activity);
    if (this.waiting.length > ACTIVITY_MAX) this.waiting.shift();
    this.paint("activity");
  }

  /** Draw at most every PAINT_MS, so that 5,000 events a minute cost no more than a few drawings a second. */
  private paint(what: "risk" | "rows" | "activity", ms = PAINT_MS): void {
    this.dirty.add(what);
    if (ms === 0) {
      clearTimeout(this.painting);
      this.painting = undefined;
    }
    this.painting ??= setTimeout(() => {
      this.painting = undefined;
      const dirty = this.dirty;
      this.dirty = new Set();
      if (!this.isClosed) batch(() => dirty.forEach((each) => this.draw(each)));
    }, ms);
  }

  private draw(what: "risk" | "rows" | "activity"): void {
    if (what === "risk") this.atRisk.value = this.ordered();
    if (what === "rows") this.rows.value = [...this.byStudent.values()];
    if (what === "activity") {
      const seen = new Set(this.activity.value.map((each) => each.event.id));
      const fresh = this.waiting.filter((each) => !seen.has(each.event.id)).reverse();
      this.waiting = [];
      this.activity.value = [...fresh, ...this.activity.value].slice(0, ACTIVITY_MAX);
    }
    const minuteAgo = Date.now() - 60_000;
    const first = this.recordedAt.findIndex((at) => at >= minuteAgo);
    this.recordedAt.splice(0, first < 0 ? this.recordedAt.length : first);
    this.activityPerMinute.value = this.recordedAt.length;
  }

  /** By urgency; while the list is held, known students keep their place and new ones come last. */
  private ordered(): AtRiskStudent[] {
    const all = [...this.students.values()];
    if (!this.isHeld.value) return all.sort(mostUrgentFirst);
    const place = new Map(this.atRisk.value.map((each, index) => [each.id, index]));
    return all.sort((a, b) => (place.get(a.id) ?? 1e9) - (place.get(b.id) ?? 1e9) || mostUrgentFirst(a, b));
  }

  private put(line: Line): void {
    this.students.set(line.studentId, lineOf(line));
  }

  private rowOf(id: string, name: string | null): Row {
    const known = this.byStudent.get(id);
    if (known && known.name === name) return known;
    const row: Row = { id, name, cells: known?.cells ?? new Map<string, Cell>() };
    this.byStudent.set(id, row);
    if (name) this.names.set(id, name);
    return row;
  }

  /** How far the numbers are, also while nothing changes; and whether the service is there. */
  private async look(): Promise<void> {
    if (document.visibilityState === "hidden") return;
    if (this.phase.value === "away") return void this.load();
    try {
      const { data } = await ask(Freshness, { classroom: this.key });
      if (!data.classroom) return;
      asOf.value = data.classroom.asOf;
      lagMs.value = data.classroom.lagMs;
      this.draw("activity");
    } catch {
      // the state of the connection is told by the streams
    }
  }

  /** After an interruption: what the streams made of the state must be what the service says when asked again. */
  private async prove(): Promise<void> {
    if (this.phase.value !== "ready") return void this.load();
    for (let tries = 0; tries < CHECKS_MAX; tries++) {
      await new Promise((done) => setTimeout(done, CHECK_AGAIN_MS)); // what was missed arrives first
      if (this.isClosed || (connection.value !== "live" && connection.value !== "connecting")) return;
      try {
        const { data } = await ask(Check, { classroom: this.key });
        const board = data.classroom?.dashboard;
        if (!board) return;
        if (this.differences(board).length === 0) return mark("equal");
      } catch {
        // asked again
      }
    }
    mark("different");
    void this.load();
  }

  private differences(board: Checked): string[] {
    const shown = (student: AtRiskStudent): string => flagsText(student.severity, student.flags);
    const asked = new Map(board.atRisk?.nodes.map((line) => [line.studentId, flagsText(line.severity, line.flags)]));
    const here = [...this.students.values()].filter((each) => each.news !== "cleared");
    const extra = board.atRisk?.pageInfo.hasNextPage ? [] : here.filter((each) => !asked.has(each.id));
    const wrong = here.filter((each) => asked.has(each.id) && asked.get(each.id) !== shown(each));
    const missing = [...asked.keys()].filter((id) => !this.students.has(id));
    const rates = this.rates.value;
    const same =
      rates?.completionRate === board.completionRate &&
      rates.averageScore === board.averageScore &&
      rates.submissionRate === board.submissionRate;
    return [...extra.map((each) => each.id), ...wrong.map((each) => each.id), ...missing, ...(same ? [] : ["rates"])];
  }

  private fail(problem: unknown): void {
    const refusal = problem instanceof Refusal ? problem : new Refusal("INTERNAL", String(problem));
    this.problem.value = refusal.message + (refusal.errorId ? ` (error ${refusal.errorId})` : "");
    if (this.phase.value === "ready") return;
    this.phase.value = refusal.code === "FORBIDDEN" ? "denied" : "away";
  }
}

function cellOf(mastery: { score: number | null; state: Cell["state"]; evidenceCount: number }): Cell {
  return { score: mastery.score, state: mastery.state, evidence: mastery.evidenceCount };
}
