// Numbers, times, sizes and money as the reader writes them.

import { useMemo, useSyncExternalStore } from "react";
import { type IntlShape, useIntl } from "react-intl";

const SIZES = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;

function bytes(intl: IntlShape, count: number): string {
  let size = 0;
  let value = count;
  while (value >= 1000 && size < SIZES.length - 1) {
    value /= 1000;
    size += 1;
  }
  return intl.formatNumber(value, {
    style: "unit",
    unit: SIZES[size] ?? "byte",
    unitDisplay: size === 0 ? "long" : "short",
    maximumFractionDigits: value < 10 && size > 0 ? 1 : 0,
  });
}

function duration(intl: IntlShape, milliseconds: number): string {
  const unit = (value: number, name: string, digits = 0): string =>
    intl.formatNumber(value, { style: "unit", unit: name, unitDisplay: "narrow", maximumFractionDigits: digits });
  if (milliseconds < 1000) return unit(Math.max(0, Math.round(milliseconds)), "millisecond");
  const seconds = milliseconds / 1000;
  if (seconds < 60) return unit(seconds, "second", seconds < 10 ? 1 : 0);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${unit(minutes, "minute")} ${unit(Math.floor(seconds % 60), "second")}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${unit(hours, "hour")} ${unit(minutes % 60, "minute")}`;
  return `${unit(Math.floor(hours / 24), "day")} ${unit(hours % 24, "hour")}`;
}

/** Micros are millionths of the mesh's unit of account, shown as cents. */
function cost(intl: IntlShape, micros: number): string {
  const cents = micros / 10_000;
  return `${intl.formatNumber(cents, { maximumFractionDigits: cents < 1 ? 3 : 1 })} ¢`;
}

function ago(intl: IntlShape, at: number, now: number): string {
  const seconds = Math.round((at - now) / 1000);
  const size = Math.abs(seconds);
  if (size < 60) return intl.formatRelativeTime(seconds, "second", { numeric: "auto" });
  if (size < 3600) return intl.formatRelativeTime(Math.round(seconds / 60), "minute");
  if (size < 86_400) return intl.formatRelativeTime(Math.round(seconds / 3600), "hour");
  return intl.formatRelativeTime(Math.round(seconds / 86_400), "day", { numeric: "auto" });
}

export type Format = {
  number: (value: number) => string;
  bytes: (count: number) => string;
  duration: (milliseconds: number) => string;
  cost: (micros: number) => string;
  /** Date and time in the reader's zone. */
  time: (at: string) => string;
  clock: (at: number) => string;
  ago: (at: string, now: number) => string;
  list: (words: string[]) => string;
};

export function useFormat(): Format {
  const intl = useIntl();
  return useMemo(
    () => ({
      number: (value) => intl.formatNumber(value),
      bytes: (count) => bytes(intl, count),
      duration: (milliseconds) => duration(intl, milliseconds),
      cost: (micros) => cost(intl, micros),
      time: (at) => intl.formatDate(at, { dateStyle: "medium", timeStyle: "medium" }),
      clock: (at) => intl.formatTime(at, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }),
      ago: (at, now) => ago(intl, Date.parse(at), now),
      list: (words) => intl.formatList(words, { type: "unit" }) as string,
    }),
    [intl],
  );
}

const TICK_MS = 1000;
let now = Date.now();
const tickers = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

/** The time, once a second, for what somebody waits for. */
export function useNow(): number {
  return useSyncExternalStore(
    (listener) => {
      tickers.add(listener);
      now = Date.now();
      timer ??= setInterval(() => {
        now = Date.now();
        for (const each of tickers) each();
      }, TICK_MS);
      return () => {
        tickers.delete(listener);
        if (tickers.size === 0) {
          clearInterval(timer);
          timer = undefined;
        }
      };
    },
    () => now,
  );
}

/** The first characters of an id, as the CLI shows it. */
export const short = (id: string): string => id.slice(0, 8);

/** One shell line for a command: the script itself where the page wrapped it, else the words quoted as needed. */
export function commandLine(command: readonly string[]): string {
  const [program, option, line] = command;
  if (command.length === 3 && line !== undefined && ((program === "sh" && option === "-c") || (program === "cmd" && option === "/c")))
    return line;
  if (command.length === 5 && program === "cmd" && option === "/d") return command[4] ?? "";
  return command.map(quoted).join(" ");
}

export const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** Shortened in the middle, so that beginning and end can be told. */
export const middle = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, Math.ceil((most - 1) / 2))}…${text.slice(text.length - Math.floor((most - 1) / 2))}`;
