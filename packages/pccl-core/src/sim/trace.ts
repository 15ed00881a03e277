/** The lines of a run, for people: when, who, what. */
import type { CoordinatorMessage, PeerMessage, RingOp } from "../membership/messages.js";

export interface TraceLine {
  readonly atMs: number;
  readonly who: string;
  readonly what: string;
}

export class Trace {
  readonly lines: TraceLine[] = [];

  add(atMs: number, who: string, what: string): void {
    this.lines.push({ atMs, who, what });
  }
}

export function formatTrace(lines: readonly TraceLine[]): string {
  const width = Math.max(0, ...lines.map(({ who }) => who.length));
  return lines
    .map(({ atMs, who, what }) => `${(atMs / 1_000).toFixed(4).padStart(9)}  ${who.padEnd(width)}  ${what}`)
    .join("\n");
}

export function describeMessage(message: CoordinatorMessage | PeerMessage): string {
  const { kind, ...fields } = message;
  switch (message.kind) {
    case "prepare": {
      const { epoch, ring, relays } = message.view;
      const over = relays.map(({ a, b, via }) => `, ${a}-${b} over ${via}`).join("");
      return `prepare epoch ${epoch}: group ${ring.group} = [${ring.peerIds.join(" ")}]${over}`;
    }
    case "install": {
      const verdicts = message.verdicts.map(
        (verdict) => `${opName(verdict)} ${verdict.commit ? "commit" : "abort"}`,
      );
      return `install epoch ${message.epoch}${list(": ", verdicts)}`;
    }
    case "ready": {
      const failures = message.failures.map(({ peerId }) => `no link to ${peerId}`);
      const ops = message.ops.map((op) => `${opName(op)} ${op.state}`);
      return `ready epoch ${message.epoch}${list(": ", [...failures, ...ops])}`;
    }
    case "sync-offer":
      return `sync-offer #${message.requestId} revision ${message.revision} = ${contentName(message.entries[0]?.hash)}, ${message.strategy}`;
    case "sync-plan": {
      const { requestId, revision, sources, fetches } = message;
      const what =
        fetches.length === 0
          ? "keep"
          : `fetch ${contentName(fetches[0]?.hash)} from ${sources.map(({ member }) => member.peerId).join(", ")}`;
      return `sync-plan #${requestId} revision ${revision}: ${what}`;
    }
    default:
      return `${kind} ${describeFields(fields)}`.trimEnd();
  }
}

export function opName({ epoch, tag, seq, from, to }: RingOp): string {
  return `op ${epoch}:${tag}${from === undefined ? "" : ` from ${from} to ${to}`}${seq === 0 ? "" : `/${seq}`}`;
}

function contentName(hash: string | undefined): string {
  return hash?.replace(/^0+/, "") ?? "nothing";
}

export function describeFields(fields: object): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined && !(value instanceof Uint8Array))
    .map(([name, value]) => `${name} ${describeValue(value)}`)
    .join(", ");
}

function describeValue(value: unknown): string {
  if (typeof value === "string") return value === "" ? '""' : value;
  if (Array.isArray(value)) return `[${value.map(describeValue).join(" ")}]`;
  if (typeof value === "object" && value !== null) return `{${describeFields(value)}}`;
  return String(value);
}

function list(before: string, items: readonly string[]): string {
  return items.length === 0 ? "" : before + items.join(", ");
}
