// The words and numbers of the page: one place, so that all views say the same.
import type { Flag, Severity } from "./risk";

export const REASONS: Record<Flag["reason"], string> = {
  MISSING_SUBMISSIONS: "Missing work",
  SCORE_TREND_DOWN: "Scores falling",
  COMPLETION_BELOW_MEDIAN: "Behind the class",
  INACTIVE: "Inactive",
};
export const SEVERITIES: Record<Severity, { word: string; mark: string }> = {
  HIGH: { word: "High", mark: "▲" },
  MEDIUM: { word: "Medium", mark: "◆" },
  LOW: { word: "Low", mark: "●" },
};
export const NUMBERS: Record<string, string> = {
  AWAITING_GRADE: "Awaiting a grade",
  CLASS_MEDIAN: "Class median",
  COMPLETION_RATE: "Completion",
  FALLS_IN_A_ROW: "Falls in a row",
  GAP_TO_MEDIAN: "Below the median by",
  INACTIVITY_LIMIT_DAYS: "Limit in days",
  INACTIVITY_REACHED_DAYS: "Days without activity",
  ITEMS_ASSIGNED: "Assigned",
  ITEMS_GRADED: "Graded",
  ITEMS_OPEN: "Open",
  NEVER_SUBMITTED: "Never handed in",
  SCORE_DROP: "Drop",
  STUDENTS_COMPARED: "Students compared",
};
const FRACTIONS = new Set(["CLASS_MEDIAN", "COMPLETION_RATE", "GAP_TO_MEDIAN", "SCORE_DROP"]);
export const ITEM_STATES: Record<string, string> = {
  AWAITING_GRADE: "awaiting a grade",
  NEVER_SUBMITTED: "never handed in",
  OPEN: "open",
  SCORED: "scored",
};
const EVENTS: Record<string, string> = {
  ASSIGNMENT_ASSIGNED: "was assigned",
  SUBMISSION_CREATED: "handed in",
  SUBMISSION_GRADED: "was graded on",
  SUBMISSION_REGRADED: "was graded again on",
  QUIZ_ATTEMPT: "took a quiz on",
  CONCEPT_STARTED: "started",
  CONCEPT_COMPLETED: "completed",
  CONCEPT_MASTERED: "was said to have mastered",
  CONTENT_VIEWED: "viewed content about",
  EXERCISE_COMPLETED: "did exercises on",
  QUALITY_ASSESSED: "had work assessed on",
  PEER_HELP: "helped a classmate with",
  HELP_REQUESTED: "asked for help with",
  STUDENT_LOGIN: "logged in",
  STUDENT_LOGOUT: "logged out",
  ASSIGNMENT_EXCUSED: "was excused from",
  ASSIGNMENT_REOPENED: "got back",
  EVENT_VOIDED: "had an event voided",
};

/** "was graded on" something, "was graded"; "viewed content about" something, "viewed content". */
export function verbOf(type: string, hasObject: boolean): string {
  const verb = EVENTS[type] ?? type.toLowerCase().replaceAll("_", " ");
  return hasObject ? verb : verb.replace(/ (on|about|with)$/, "");
}

/** A fraction in percent; an absent number is said to be absent, never 0. */
export function percent(fraction: number | null | undefined, digits = 0): string {
  return fraction === null || fraction === undefined ? "–" : `${(fraction * 100).toFixed(digits)} %`;
}

export function numberShown(name: string, value: number): string {
  return FRACTIONS.has(name) ? percent(value, 1) : String(value);
}

const clocks = new Map<string, Intl.DateTimeFormat>();
function formatted(zone: string, key: string, options: Intl.DateTimeFormatOptions, at: string | number): string {
  const name = `${zone} ${key}`;
  let clock = clocks.get(name);
  if (!clock) {
    try {
      clock = new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options });
    } catch {
      clock = new Intl.DateTimeFormat(undefined, options);
    }
    clocks.set(name, clock);
  }
  return clock.format(new Date(at));
}

export const timeOf = (at: string | number, zone: string): string =>
  formatted(zone, "time", { hour: "2-digit", minute: "2-digit", second: "2-digit" }, at);
export const clockOf = (at: string | number, zone: string): string =>
  formatted(zone, "clock", { hour: "2-digit", minute: "2-digit" }, at);
export const dayOf = (at: string | number, zone: string): string =>
  formatted(zone, "day", { day: "numeric", month: "short", year: "numeric" }, at);
export const momentOf = (at: string | number, zone: string): string =>
  formatted(zone, "moment", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }, at);

/** "0 s", "4 s", "3 min". */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5_400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

/** Seven steps of mastery in words, colours being for the eye only. */
export function stepOf(score: number): number {
  return Math.min(6, Math.floor(score * 7));
}
