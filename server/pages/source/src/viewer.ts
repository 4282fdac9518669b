// Who looks: their key, their roles, and where a class leads them.
import { signal } from "@preact/signals";
import { ask } from "./api";
import { Viewer, type ViewerQuery } from "./generated/documents";

type Found = NonNullable<ViewerQuery["viewer"]>;

export const viewer = signal<Found | null>(null);

export async function loadViewer(): Promise<void> {
  viewer.value = (await ask(Viewer, {})).data.viewer;
}

/** Students see themselves in a class, everyone else the class. */
export function placeOf(classroom: string): string {
  const who = viewer.value;
  const place = `#/class/${encodeURIComponent(classroom)}`;
  const isStaff = who?.roles.some((role) => role === "TEACHER" || role === "ADMIN");
  return who?.roles.includes("STUDENT") && !isStaff ? `${place}/student/${encodeURIComponent(who.key)}` : place;
}
