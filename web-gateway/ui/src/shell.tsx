// What stands around every page: where one is, what can be found, which language, whether what is shown is fresh.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useRouter, useRouterState } from "@tanstack/react-router";
import { lazy, type ReactNode, Suspense, useEffect, useRef, useState } from "react";

import { Refused, send } from "./api/client";
import { follow, useSilence } from "./api/live";
import { statusQuery } from "./api/queries";
import { useFormat, useNow } from "./format";
import { keep, type Language, type MessageId, useLanguage, useT } from "./i18n";
import { useKeys } from "./keys";
import css from "./shell.module.css";
import { Button, classes, Code, css as parts, Problem } from "./ui";

const Palette = lazy(() => import("./palette"));
const KeysHelp = lazy(() => import("./keys-help"));

const PLACES = [
  ["/", "nav.home", <path key="i" d="M2 7l6-5 6 5v7H2z" />],
  ["/jobs", "nav.jobs", <path key="i" d="M2 4h12M2 8h12M2 12h8" />],
  ["/ideas", "nav.ideas", <path key="i" d="M8 2a4 4 0 0 0-2 7.500V12h4V9.500A4 4 0 0 0 8 2zM6 14h4" />],
  ["/nodes", "nav.nodes", <path key="i" d="M2 3h12v8H2zM6 14h4" />],
  ["/mesh", "nav.mesh", <path key="i" d="M8 3L3 12h10zM8 3h.01M3 12h.01M13 12h.01" />],
  ["/storage", "nav.storage", <path key="i" d="M3 4c0-2.600 10-2.600 10 0v8c0 2.600-10 2.600-10 0zM3 4c0 2.600 10 2.600 10 0" />],
] as const satisfies readonly (readonly [string, MessageId, ReactNode])[];

export function Shell() {
  const queries = useQueryClient();
  const status = useQuery(statusQuery);
  const [isOver, setOver] = useState(false);
  const signedOut = isOver || (status.error instanceof Refused && status.error.status === 401);
  const signedIn = status.data !== undefined && !signedOut;

  useEffect(() => {
    if (!signedIn) return;
    return follow(queries, () => void queries.invalidateQueries({ queryKey: ["status"] }));
  }, [signedIn, queries]);

  if (signedOut) return <SignIn />;
  if (status.error && !status.data)
    return (
      <main className={css["sign"]}>
        <h1>V6</h1>
        <Problem error={status.error} again={() => void status.refetch()} />
      </main>
    );
  return <Frame onEnd={() => { queries.clear(); setOver(true); }} isReady={signedIn} />;
}

function Frame({ onEnd, isReady }: { onEnd: () => void; isReady: boolean }) {
  const t = useT();
  const router = useRouter();
  const path = useRouterState({ select: (state) => state.location.pathname });
  const [open, setOpen] = useState<"palette" | "keys" | "menu" | null>(null);
  const close = () => setOpen(null);
  useKeys({
    "ctrl+k": () => setOpen("palette"),
    "?": () => setOpen("keys"),
    "g h": () => void router.navigate({ to: "/" }),
    "g j": () => void router.navigate({ to: "/jobs" }),
    "g i": () => void router.navigate({ to: "/ideas" }),
    "g n": () => void router.navigate({ to: "/nodes" }),
    "g m": () => void router.navigate({ to: "/mesh" }),
    "g s": () => void router.navigate({ to: "/storage" }),
    c: () => void router.navigate({ to: "/jobs/new" }),
  });
  const shown = useRef(path);
  useEffect(() => {
    if (shown.current === path) return;
    shown.current = path;
    setOpen(null);
  }, [path]);
  return (
    <>
      <a className={css["skip"]} href="#main">
        {t("nav.skip")}
      </a>
      <div className={css["app"]}>
        <Navigation path={path} isOpen={open === "menu"} onEnd={onEnd} />
        <div className={css["body"]}>
          <header className={css["bar"]}>
            <span className={css["menu"]}>
              <Button aria-expanded={open === "menu"} onPress={() => setOpen(open === "menu" ? null : "menu")}>
                {t("nav.menu")}
              </Button>
            </span>
            <button type="button" className={css["find"]} onClick={() => setOpen("palette")} aria-keyshortcuts="Control+K">
              <span>{t("nav.find")}</span>
              <kbd dir="ltr">Ctrl K</kbd>
            </button>
            <Link to="/jobs/new" className={classes(parts["button"], parts["main"], css["new"])}>
              <span aria-hidden="true">+</span>
              {t("nav.new")}
            </Link>
          </header>
          <Freshness />
          {isReady ? <Outlet /> : <main className={css["main"]} id="main" aria-busy="true"><h1 className="only-read">V6</h1></main>}
        </div>
      </div>
      <Suspense fallback={null}>
        {open === "palette" && <Palette onClose={close} />}
        {open === "keys" && <KeysHelp onClose={close} />}
      </Suspense>
    </>
  );
}

function Navigation({ path, isOpen, onEnd }: { path: string; isOpen: boolean; onEnd: () => void }) {
  const t = useT();
  const format = useFormat();
  const { data } = useQuery(statusQuery);
  const open = (data?.jobs["queued"] ?? 0) + (data?.jobs["claimed"] ?? 0) + (data?.jobs["running"] ?? 0);
  const isHere = (to: string) => (to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`));
  const end = async () => {
    await send("POST", "/v1/session/end").catch(() => undefined);
    onEnd();
  };
  return (
    <nav className={css["nav"]} aria-label={t("nav.label")} data-open={isOpen || undefined}>
      <span className={css["logo"]} aria-hidden="true">
        V<i>6</i>
      </span>
      <ul>
        {PLACES.map(([to, word, shape]) => (
          <li key={to}>
            <Link to={to} className={css["link"]} {...(isHere(to) ? { "aria-current": "page" as const } : { "aria-current": undefined })}>
              <svg viewBox="0 0 16 16" aria-hidden="true">
                {shape}
              </svg>
              {t(word)}
              {to === "/jobs" && open > 0 && <b>{format.number(open)}</b>}
            </Link>
          </li>
        ))}
      </ul>
      <div className={css["foot"]}>
        {data && (
          <span>
            <i className={css["dot"]} data-alone={data.peers_online === 0 || undefined} aria-hidden="true" />
            <bdi>{data.name}</bdi> · {t("nav.peers", { count: data.peers_online })}
          </span>
        )}
        <LanguageChoice />
        <ThemeChoice />
        <Button look="quiet" onPress={() => void end()}>
          {t("nav.signOut")}
        </Button>
      </div>
    </nav>
  );
}

const LANGUAGES: [Language, string][] = [
  ["en", "English"],
  ["ar", "العربية"],
];

function LanguageChoice() {
  const { language, choose } = useLanguage();
  const t = useT();
  return (
    <div className={css["seg"]} role="group" aria-label={t("nav.language")}>
      {LANGUAGES.map(([code, name]) => (
        <button key={code} type="button" lang={code} aria-pressed={language === code} onClick={() => choose(code)}>
          {name}
        </button>
      ))}
    </div>
  );
}

function ThemeChoice() {
  const t = useT();
  const [isDark, setDark] = useState(document.documentElement.dataset["theme"] === "dark");
  const choose = (dark: boolean) => {
    const name = dark ? "dark" : "light";
    document.documentElement.dataset["theme"] = name;
    keep("v6.theme", name);
    setDark(dark);
  };
  return (
    <div className={css["seg"]} role="group" aria-label={t("nav.theme")}>
      <button type="button" aria-pressed={!isDark} onClick={() => choose(false)}>
        {t("nav.light")}
      </button>
      <button type="button" aria-pressed={isDark} onClick={() => choose(true)}>
        {t("nav.dark")}
      </button>
    </div>
  );
}

/** Nothing while all is well; else how old what is shown is. */
function Freshness() {
  const since = useSilence();
  return since === null ? null : <Stale since={since} />;
}

function Stale({ since }: { since: number }) {
  const t = useT();
  const format = useFormat();
  const now = useNow();
  return (
    <div className={css["stale"]} role="status">
      {t("stale", { age: format.duration(Math.max(1000, now - since)) })}
    </div>
  );
}

function SignIn() {
  const t = useT();
  useEffect(() => {
    document.title = `${t("sign.title")} · V6`;
  });
  return (
    <main className={css["sign"]} id="main">
      <h1>{t("sign.title")}</h1>
      <p>{t("sign.how")}</p>
      <Code>v6 open</Code>
      <p>{t("sign.elsewhere")}</p>
      <Code>v6 open --print</Code>
      <p className={parts["hint"]}>{t("sign.once")}</p>
      <LanguageChoice />
    </main>
  );
}

/** A page: its heading, what can be done with it, and whether it is still being read. */
export function Page({
  title,
  heading,
  isHidden,
  actions,
  isBusy,
  children,
}: {
  title: string;
  heading?: ReactNode;
  isHidden?: boolean;
  actions?: ReactNode;
  isBusy?: boolean;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = `${title} · V6`;
  }, [title]);
  return (
    <main className={css["main"]} id="main" tabIndex={-1} aria-busy={isBusy || undefined}>
      {isHidden ? (
        <h1 className="only-read">{title}</h1>
      ) : (
        <div className={css["title"]}>
          <h1>{heading ?? title}</h1>
          {actions}
        </div>
      )}
      {children}
    </main>
  );
}
