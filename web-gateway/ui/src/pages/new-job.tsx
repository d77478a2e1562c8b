// A new job: what is to be run, with which files, where it would run now, and the same as a line for a terminal.

import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useEffect, useState } from "react";

import { type Schemas, send } from "../api/client";
import { jobQuery, peersQuery, statusQuery } from "../api/queries";
import { commandLine, quoted, useFormat } from "../format";
import { useT } from "../i18n";
import { Page } from "../shell";
import type { Dropped, Progress } from "../tree/upload";
import { Button, css as parts, Code, Field, Loading, Name, Problem } from "../ui";
import css from "./new-job.module.css";

const route = getRouteApi("/jobs/new");
/** Pause in typing after which the node is asked where the job would run. */
const ASK_MS = 300;

type Form = {
  line: string;
  labels: string;
  artifacts: string;
  name: string;
  array: string;
  retries: string;
  timeout: string;
  cores: string;
  memory: string;
  priority: string;
  idea: string;
  os: string;
  network: boolean;
  atMostOnce: boolean;
  input?: string | undefined;
};

export const EMPTY: Form = {
  line: "",
  labels: "",
  artifacts: "",
  name: "",
  array: "",
  retries: "",
  timeout: "",
  cores: "",
  memory: "",
  priority: "",
  idea: "",
  os: "",
  network: false,
  atMostOnce: false,
};

export const words = (text: string): string[] => text.split(/[,،\n]/).map((word) => word.trim()).filter(Boolean);

const number = (text: string): number | undefined => {
  const value = Number(text.trim());
  return text.trim() === "" || !Number.isFinite(value) ? undefined : value;
};

/** Only what was said is sent: everything else is the node's default. */
export function requestOf(form: Form): Partial<Schemas["JobRequest"]> {
  const command = form.os === "windows" ? ["cmd", "/d", "/s", "/c", form.line] : ["sh", "-c", form.line];
  const timeout = number(form.timeout);
  const memory = number(form.memory);
  const said: Partial<Schemas["JobRequest"]> = {
    command,
    labels: words(form.labels),
    outputs: words(form.artifacts),
    input: form.input ?? null,
    name: form.name.trim() || null,
    array: number(form.array) ?? null,
    retries: number(form.retries) ?? 0,
    timeout_ms: timeout === undefined ? null : Math.round(timeout * 60_000),
    cores: number(form.cores) ?? null,
    memory_bytes: memory === undefined ? null : Math.round(memory * 1e6),
    priority: number(form.priority) ?? 0,
    idea: form.idea.trim() || null,
    os: form.os || null,
    network: form.network,
    at_most_once: form.atMostOnce,
  };
  return Object.fromEntries(
    Object.entries(said).filter(([, value]) => value !== null && value !== false && value !== 0 && !(Array.isArray(value) && value.length === 0)),
  );
}

/** The same job as a line for a terminal. */
export function asCommand(form: Form, hasFiles: boolean): string {
  const options: string[] = [];
  if (hasFiles) options.push("--input .");
  for (const glob of words(form.artifacts)) options.push(`--output ${quoted(glob)}`);
  for (const label of words(form.labels)) options.push(`--label ${quoted(label)}`);
  const pairs: [string, string][] = [
    ["--name", form.name],
    ["--array", form.array],
    ["--retries", form.retries],
    ["--timeout", form.timeout && `${form.timeout.trim()}m`],
    ["--cores", form.cores],
    ["--memory", form.memory && `${form.memory.trim()}MB`],
    ["--priority", form.priority],
    ["--idea", form.idea],
    ["--os", form.os],
  ];
  for (const [option, value] of pairs) if (value.trim() !== "") options.push(`${option} ${quoted(value.trim())}`);
  if (form.network) options.push("--network");
  if (form.atMostOnce) options.push("--at-most-once");
  const shell = form.os === "windows" ? "cmd /d /s /c" : "sh -c";
  return ["v6 run", ...options, "--", shell, quoted(form.line || "…")].join(" ");
}

export function NewJob() {
  const search = route.useSearch();
  const like = useQuery({ ...jobQuery(search.like ?? ""), enabled: search.like !== undefined });
  const t = useT();
  if (search.like !== undefined && !like.data && !like.error)
    return (
      <Page title={t("nav.new")} isBusy>
        <Loading />
      </Page>
    );
  return (
    <Page title={t("nav.new")}>
      <JobForm start={{ ...EMPTY, ...(like.data ? formOf(like.data) : {}), ...(search.idea ? { idea: search.idea } : {}) }} />
    </Page>
  );
}

function formOf(job: Schemas["JobView"]): Partial<Form> {
  const wanted = job.wanted;
  const text = (value: number | null | undefined) => (value === null || value === undefined || value === 0 ? "" : String(value));
  return {
    line: commandLine(job.command),
    labels: (job.labels ?? []).join(", "),
    name: job.name ?? "",
    artifacts: (wanted?.outputs ?? []).join(", "),
    array: text(wanted?.array),
    retries: text(wanted?.retries),
    timeout: wanted?.timeout_ms ? String(wanted.timeout_ms / 60_000) : "",
    cores: text(wanted?.cores),
    memory: wanted?.memory_bytes ? String(wanted.memory_bytes / 1e6) : "",
    priority: text(wanted?.priority),
    os: wanted?.os ?? "",
    network: wanted?.network ?? false,
    atMostOnce: wanted?.at_most_once ?? false,
    input: wanted?.input ?? undefined,
    idea: job.idea ?? "",
  };
}

function JobForm({ start }: { start: Form }) {
  const t = useT();
  const navigate = route.useNavigate();
  const [form, setForm] = useState(start);
  const [files, setFiles] = useState<Dropped[]>([]);
  const [progress, setProgress] = useState<Progress | null>(null);
  const [wasTried, setTried] = useState(false);
  const set = (change: Partial<Form>) => setForm((now) => ({ ...now, ...change }));
  const labels = useKnownLabels();
  const create = useMutation({
    mutationFn: async () => {
      const request = requestOf(form);
      if (files.length > 0) {
        const { uploadTree } = await import("../tree/upload");
        request.input = await uploadTree(files, setProgress);
      }
      return send<Schemas["Submitted"]>("POST", "/v1/jobs", request);
    },
    onSuccess: (made) => navigate({ to: "/jobs/$id", params: { id: made.job } }),
  });
  const isEmpty = form.line.trim() === "";
  const tidy = (field: "labels" | "artifacts") => () => set({ [field]: words(form[field]).join(", ") });
  const submit = () => {
    setTried(true);
    if (!isEmpty && !create.isPending) create.mutate();
  };
  return (
    <form
      className={css["form"]}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <Field
        label={t("new.command")}
        value={form.line}
        onChange={(line) => set({ line })}
        hint={t("new.commandHint", { shell: form.os === "windows" ? "cmd /d /s /c" : "sh -c" })}
        error={wasTried && isEmpty ? t("new.commandMissing") : undefined}
        autoFocus
        mono
        required
      />
      <FileDrop files={files} onFiles={setFiles} hasInput={form.input !== undefined} progress={progress} />
      <div className={css["two"]}>
        <Field label={t("new.labels")} value={form.labels} onChange={(text) => set({ labels: text })} onBlur={tidy("labels")} hint={t("new.labelsHint")} list={labels} />
        <Field label={t("new.artifacts")} value={form.artifacts} onChange={(text) => set({ artifacts: text })} onBlur={tidy("artifacts")} hint={t("new.artifactsHint")} mono />
      </div>
      <details className={css["more"]}>
        <summary>{t("new.more")}</summary>
        <div className={css["form"]}>
          <div className={css["two"]}>
            <Field label={t("new.name")} value={form.name} onChange={(name) => set({ name })} />
            <Field label={t("new.idea")} value={form.idea} onChange={(idea) => set({ idea })} mono />
            <Field label={t("new.array")} value={form.array} onChange={(array) => set({ array })} type="number" hint={t("new.arrayHint")} />
            <Field label={t("new.retries")} value={form.retries} onChange={(retries) => set({ retries })} type="number" />
            <Field label={t("new.timeout")} value={form.timeout} onChange={(timeout) => set({ timeout })} type="number" />
            <Field label={t("new.cores")} value={form.cores} onChange={(cores) => set({ cores })} type="number" />
            <Field label={t("new.memory")} value={form.memory} onChange={(memory) => set({ memory })} type="number" />
            <Field label={t("new.priority")} value={form.priority} onChange={(priority) => set({ priority })} type="number" />
            <div className={parts["field"]}>
              <label htmlFor="os">{t("new.os")}</label>
              <select id="os" value={form.os} onChange={(event) => set({ os: event.target.value })}>
                <option value="">{t("new.osAny")}</option>
                <option value="linux">Linux</option>
                <option value="windows">Windows</option>
                <option value="macos">macOS</option>
              </select>
            </div>
          </div>
          <label className={css["check"]}>
            <input type="checkbox" checked={form.network} onChange={(event) => set({ network: event.target.checked })} />
            {t("new.network")}
          </label>
          <label className={css["check"]}>
            <input type="checkbox" checked={form.atMostOnce} onChange={(event) => set({ atMostOnce: event.target.checked })} />
            {t("new.once")}
          </label>
        </div>
      </details>
      <Would form={form} />
      {create.error && <Problem error={create.error} />}
      <div className={parts["actions"]}>
        <Button type="submit" look="main" isDisabled={create.isPending}>
          {t("new.create")}
        </Button>
      </div>
      <AsLine line={asCommand(form, files.length > 0 || form.input !== undefined)} />
    </form>
  );
}

/** Labels that machines of the mesh really have. */
function useKnownLabels(): string[] {
  const { data: status } = useQuery(statusQuery);
  const { data: peers } = useQuery(peersQuery);
  return [...new Set([...(status?.labels ?? []), ...(peers ?? []).flatMap((peer) => peer.labels)])].sort();
}

function useSettled<T>(value: T): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ASK_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

/** Where the job would run if it were submitted now. */
function Would({ form }: { form: Form }) {
  const t = useT();
  const format = useFormat();
  const request = useSettled(JSON.stringify(requestOf(form)));
  const { data } = useQuery({
    queryKey: ["would", request],
    queryFn: () => send<Schemas["Explain"]>("POST", "/v1/jobs/plan", JSON.parse(request) as unknown),
    enabled: form.line.trim() !== "",
    staleTime: 2_000,
    refetchInterval: 5_000,
    retry: false,
  });
  const best = data?.offers.find((offer) => offer.fits);
  return (
    <p className={css["would"]} role="status">
      {data && best && (
        <>
          {t("new.would")} <Name>{best.name}</Name>
          {best.bid_micros !== null && best.bid_micros !== undefined && ` · ${format.cost(best.bid_micros)}`}
          {" · "}
          <span dir="auto">{data.summary}</span>
        </>
      )}
      {data && !best && (
        <>
          {t("new.nobody")} <span dir="auto">{data.summary}</span>
        </>
      )}
    </p>
  );
}

function AsLine({ line }: { line: string }) {
  const t = useT();
  const [isCopied, setCopied] = useState(false);
  const copy = () =>
    void navigator.clipboard.writeText(line).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  return (
    <div className={parts["section"]}>
      <h2>{t("new.same")}</h2>
      <div className={css["copy"]}>
        <Code>{line}</Code>
        <Button onPress={copy}>{isCopied ? t("new.copied") : t("new.copy")}</Button>
      </div>
    </div>
  );
}

function FileDrop({
  files,
  onFiles,
  hasInput,
  progress,
}: {
  files: Dropped[];
  onFiles: (files: Dropped[]) => void;
  hasInput: boolean;
  progress: Progress | null;
}) {
  const t = useT();
  const format = useFormat();
  const [isOver, setOver] = useState(false);
  const size = files.reduce((sum, one) => sum + one.file.size, 0);
  const choose = (isFolder: boolean) => {
    const input = document.createElement("input");
    input.type = "file";
    input.multiple = true;
    input.webkitdirectory = isFolder;
    input.onchange = () => {
      const list = input.files;
      if (list) void import("../tree/upload").then(({ chosen }) => onFiles(chosen(list)));
    };
    input.click();
  };
  return (
    <div
      className={css["drop"]}
      data-over={isOver || undefined}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        const items = event.dataTransfer.items;
        void import("../tree/upload").then(async ({ dropped }) => onFiles(await dropped(items)));
      }}
    >
      <span className={parts["label"]}>{t("new.files")}</span>
      {files.length > 0 ? (
        <span>
          {t("new.filesCount", { count: files.length, shown: format.number(files.length) })} · {format.bytes(size)}
        </span>
      ) : (
        <span className={parts["hint"]}>{hasInput ? t("new.filesSame") : t("new.filesHint")}</span>
      )}
      {progress && (
        <span className={parts["hint"]} role="status">
          {t("new.progress", { hashed: format.number(progress.hashed), files: format.number(progress.files), sent: format.bytes(progress.bytes) })}
        </span>
      )}
      <span className={parts["actions"]}>
        <Button onPress={() => choose(true)}>{t("new.folder")}</Button>
        <Button onPress={() => choose(false)}>{t("new.someFiles")}</Button>
        {files.length > 0 && (
          <Button look="quiet" onPress={() => onFiles([])}>
            {t("new.noFiles")}
          </Button>
        )}
      </span>
    </div>
  );
}
