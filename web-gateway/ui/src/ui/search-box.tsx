// The words that a list is filtered by: they are in the address a moment after the person stopped writing.

import { type ReactNode, useEffect, useRef, useState } from "react";

import { useKeys } from "../keys";
import list from "../pages/jobs.module.css";
import { Field } from ".";

const TYPING_MS = 250;

/** A search field, which `/` leads to, and beside it what else filters the list. */
export function SearchBox({
  label,
  words,
  onWords,
  children,
}: {
  label: string;
  words: string;
  onWords: (words: string) => void;
  children: ReactNode;
}) {
  const [text, setText] = useState(words);
  const box = useRef<HTMLDivElement>(null);
  useKeys({ "/": () => box.current?.querySelector("input")?.focus() });
  const tell = useRef(onWords);
  useEffect(() => {
    tell.current = onWords;
  });
  useEffect(() => {
    const timer = setTimeout(() => {
      if (text.trim() !== words) tell.current(text.trim());
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, words]);
  return (
    <div className={list["filters"]} ref={box} role="search">
      <Field label={label} value={text} onChange={setText} type="search" />
      {children}
    </div>
  );
}
