// States: each has a colour, a shape and a word.

import type { Schemas } from "../api/client";
import { type MessageId, useT } from "../i18n";
import { classes, css } from ".";

export type JobState = Schemas["JobState"];
type AttemptState = Schemas["AttemptState"];

/** Whether nothing will change any more. */
export const isOver = (state: JobState): boolean => ["done", "failed", "cancelled", "skipped"].includes(state);

type Look = "run" | "done" | "fail" | "wait" | "idle";

const LOOKS: Record<JobState | "lost", [Look, string]> = {
  queued: ["wait", "…"],
  claimed: ["wait", "◔"],
  running: ["run", "◐"],
  done: ["done", "✓"],
  failed: ["fail", "✕"],
  cancelled: ["idle", "⊘"],
  skipped: ["idle", "»"],
  lost: ["fail", "⚡"],
};

export const stateWord = (state: JobState | AttemptState): MessageId => `state.${state}`;

export const lookOf = (state: JobState | AttemptState): Look => LOOKS[state][0];

export function StateMark({ state }: { state: JobState | AttemptState }) {
  const t = useT();
  const [look, shape] = LOOKS[state];
  return (
    <span className={classes(css["mark"], css[look])} role="img" aria-label={t(stateWord(state))} title={t(stateWord(state))}>
      <span aria-hidden="true">{shape}</span>
    </span>
  );
}

export function StatePill({ state }: { state: JobState | AttemptState }) {
  const t = useT();
  const [look, shape] = LOOKS[state];
  return (
    <span className={classes(css["pill"], css[look])}>
      <span aria-hidden="true">{shape}</span>
      <span>{t(stateWord(state))}</span>
    </span>
  );
}

const IDEA_LOOKS: Record<string, [Look, string, MessageId]> = {
  open: ["wait", "○", "idea.open"],
  accepted: ["run", "◉", "idea.accepted"],
  rejected: ["fail", "✕", "idea.rejected"],
  deferred: ["idle", "⏸", "idea.deferred"],
  done: ["done", "✓", "idea.done"],
  retracted: ["idle", "⊘", "idea.retracted"],
};

export const IDEA_STATES = ["open", "accepted", "deferred", "done", "rejected", "retracted"] as const;

export function IdeaPill({ status }: { status: string }) {
  const t = useT();
  const known = IDEA_LOOKS[status];
  const [look, shape, word] = known ?? ["idle", "·", undefined];
  return (
    <span className={classes(css["pill"], css[look])}>
      <span aria-hidden="true">{shape}</span>
      <span>{word ? t(word) : status}</span>
    </span>
  );
}
