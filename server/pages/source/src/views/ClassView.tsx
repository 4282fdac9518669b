// A class at a glance, kept open all day.
import { useEffect, useMemo } from "preact/hooks";
import { Classroom } from "../classroom";
import { Activity } from "./Activity";
import { AtRisk } from "./AtRisk";
import { Changes } from "./Changes";
import { HeatMap } from "./HeatMap";
import { RatesView } from "./Rates";
import { Problem, State } from "./State";

export function ClassView({ classroom }: { classroom: string }) {
  const room = useMemo(() => new Classroom(classroom), [classroom]);
  useEffect(() => () => room.close(), [room]);
  if (room.phase.value !== "ready") {
    return <State phase={room.phase.value} what="class" problem={room.problem.value} retry={() => void room.load()} />;
  }
  return (
    <main id="main" tabIndex={-1}>
      <h1>
        <bdi>{room.name.value}</bdi>
      </h1>
      <Problem text={room.problem.value} />
      <RatesView room={room} />
      {room.isEmpty.value ? (
        <p class="card">Nobody is enrolled in this class today. Students appear here as soon as the roster names them.</p>
      ) : (
        <>
          <div class="class columns">
            <AtRisk room={room} />
            <div>
              <Changes room={room} />
              <Activity room={room} />
            </div>
          </div>
          <HeatMap room={room} />
        </>
      )}
    </main>
  );
}
