// The classes of a viewer in a few numbers each: where to look first. Read when the list of classes is looked at.
import { signal } from "@preact/signals";
import { ask } from "./api";
import { Overview, type OverviewQuery } from "./generated/documents";

const AGAIN_MS = 30_000; // it is a look, not a watch: an open class is live

type Found = NonNullable<NonNullable<OverviewQuery["viewer"]>["classrooms"]>["nodes"][number];
export type Numbers = NonNullable<Found["dashboard"]>;

/** By the key of a class; one that is missing has no numbers that the viewer may see, or none yet. */
export const overview = signal<ReadonlyMap<string, Numbers>>(new Map());
let readAt = 0;

export async function loadOverview(): Promise<void> {
  if (Date.now() - readAt < AGAIN_MS) return;
  readAt = Date.now();
  try {
    const { data } = await ask(Overview, {});
    const found = data.viewer?.classrooms?.nodes ?? [];
    overview.value = new Map(found.flatMap((each) => (each.dashboard ? [[each.key, each.dashboard] as const] : [])));
  } catch {
    readAt = 0; // the list stands without them; the next look asks again
  }
}
