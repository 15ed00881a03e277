/** The coordinator as arbiter: commit or abort for each op that was running when its members froze. */
import type { OpName, OpReport, OpState, OpVerdict } from "./messages.js";

export function opKey({ tag, seq, from, to }: OpName): string {
  return from === undefined ? `${tag}/${seq}` : `${tag}/${seq} from ${from} to ${to}`;
}

/** Whether this member takes part in the op; all do but in a send and its recv. */
export function takesPart({ from, to }: OpName, peerId: number): boolean {
  return from === undefined || peerId === from || peerId === to;
}

export interface Decision {
  readonly verdicts: readonly OpVerdict[];
  /** Reports that can't both be true; empty unless a peer is broken. */
  readonly contradictions: readonly string[];
}

/**
 * Verdicts for one group's ops of `epoch`. `reports` has one entry for each survivor: a living member of the
 * group in that epoch, all of them frozen, with its reports of ops that it takes part in. Of an op between two members
 * only these two count.
 *
 * A member commits once it knows that *every* member is done (it holds its full result). Hence:
 * - Some survivor has committed: then every member was done, so every survivor holds its full result. Commit.
 * - Some survivor is not done, has aborted the op, or doesn't know it: being frozen it hasn't said "done" and
 *   never will, so no member can have heard all of them; nobody has committed, the dead included. Abort.
 * - All survivors are done: each holds its full result, whatever the dead did. Commit. (A dead member may have
 *   committed and told its caller, so abort would be wrong; it can't have aborted, for only a member that isn't
 *   done aborts an op, and its contribution is in the result that the survivors hold.)
 *
 * The order of the rules doesn't matter for honest reports: the first and the second exclude each other.
 */
export function decide(epoch: number, reports: ReadonlyMap<number, ReadonlyMap<string, OpReport>>): Decision {
  const ops = new Map([...reports].flatMap(([, ofPeer]) => [...ofPeer]));
  const contradictions: string[] = [];
  const verdicts = [...ops].map(([key, { tag, seq, from, to }]): OpVerdict => {
    const survivors = [...reports].filter(([peerId]) => takesPart({ tag, seq, from, to }, peerId));
    const states = survivors.map(([, ofPeer]): OpState | "unknown" => ofPeer.get(key)?.state ?? "unknown");
    const committed = states.includes("committed");
    const complete = states.every((state) => state === "done" || state === "committed");
    if (committed && !complete) {
      const seen = survivors.map(([peerId], index) => `peer ${peerId} ${states[index]}`).join(", ");
      contradictions.push(`op ${key} of epoch ${epoch}: ${seen}`);
    }
    return { epoch, tag, seq, from, to, commit: committed || complete };
  });
  return { verdicts, contradictions };
}
