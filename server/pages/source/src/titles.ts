// What work and concepts are called: events name them by key, people know them by title.
import { signal } from "@preact/signals";
import { type Answer, ask } from "./api";
import { ClassWork, type ClassWorkQuery } from "./generated/documents";

type Work = NonNullable<ClassWorkQuery["classroom"]>["assignments"];

const PAGES_MAX = 5; // of 200 pieces of work
const AGAIN_MS = 10_000; // work that is assigned while the page is open is looked up, not more often than this

const titles = signal<ReadonlyMap<string, string>>(new Map());
const names = signal<ReadonlyMap<string, string>>(new Map());
let classroom = "";
let askedAt = 0;

/** Read the titles of a class's work. Where they cannot be read, keys are shown. */
export async function loadTitles(of: string): Promise<void> {
  if (of !== classroom) titles.value = new Map();
  classroom = of;
  askedAt = Date.now();
  const found = new Map<string, string>();
  let after: string | null = null;
  for (let page = 0; page < PAGES_MAX; page++) {
    const answer: Answer<ClassWorkQuery> | null = await ask(ClassWork, { classroom: of, after }).catch(() => null);
    const work: Work | null | undefined = answer?.data.classroom?.assignments;
    if (!work || of !== classroom) return;
    work.nodes.forEach((each) => found.set(each.key, each.title));
    after = work.pageInfo.endCursor;
    if (!work.pageInfo.hasNextPage) break;
  }
  titles.value = found;
}

/** A piece of work was spoken of: one that is new is looked up. */
export function mention(assignment: string | null): void {
  if (assignment && classroom && !titles.value.has(assignment) && Date.now() - askedAt > AGAIN_MS) void loadTitles(classroom);
}

/** Remember what concepts are called. */
export function learn(concepts: readonly { key: string; name: string }[]): void {
  if (concepts.every((each) => names.value.get(each.key) === each.name)) return;
  names.value = new Map([...names.value, ...concepts.map((each) => [each.key, each.name] as const)]);
}

export const titleOf = (assignment: string): string => titles.value.get(assignment) ?? assignment;
export const conceptOf = (concept: string): string => names.value.get(concept) ?? concept;
