// Keys of the whole page: single keys and two in a row, never while somebody writes.

import { useEffect, useRef } from "react";

const SECOND_KEY_MS = 1200;

const isWriting = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

export function useKeys(keys: Record<string, () => void>): void {
  const current = useRef(keys);
  useEffect(() => {
    current.current = keys;
  });
  useEffect(() => {
    let first = "";
    let at = 0;
    const press = (event: KeyboardEvent): void => {
      if (event.isComposing || event.altKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const name = event.ctrlKey || event.metaKey ? `ctrl+${key}` : key;
      if (!name.startsWith("ctrl+") && isWriting(event.target)) return;
      const two = Date.now() - at < SECOND_KEY_MS ? `${first} ${name}` : "";
      const act = current.current[two] ?? current.current[name];
      first = name;
      at = Date.now();
      if (!act) return;
      first = "";
      event.preventDefault();
      act();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

/** Rows that j and k go through: the links of a list, by where the focus is. */
export function useRowKeys(list: { current: HTMLElement | null }): void {
  const go = (step: number) => {
    const links = [...(list.current?.querySelectorAll<HTMLElement>("[data-row]") ?? [])];
    const at = links.indexOf(document.activeElement as HTMLElement);
    links[Math.min(links.length - 1, Math.max(0, at + step))]?.focus();
  };
  useKeys({ j: () => go(1), k: () => go(-1) });
}
