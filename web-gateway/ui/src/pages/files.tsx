// The files of a job, while it still runs too: each can be downloaded, and where a browser can show it safely, looked at.

import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { artifactUrl, ask, type Schemas } from "../api/client";
import { useFormat } from "../format";
import { useT } from "../i18n";
import { Button, css as parts, Dialog, Loading, Name, Problem, Section } from "../ui";
import { isOver } from "../ui/state";
import css from "./job.module.css";

const FILES_MAX = 200;
/** Bytes of a text that are looked at; the rest is in the download. */
const PREVIEW_BYTES = 256 * 1024;
const IMAGE_BYTES_MAX = 16 * 1024 * 1024;
const IMAGES: Record<string, string> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
  avif: "image/avif",
};
const TEXTS = /\.(txt|log|md|json|jsonl|csv|tsv|xml|ya?ml|toml|ini|cfg|conf|html?|css|[cm]?[jt]sx?|rs|py|sh|c|h|cpp|go|java|sql|tex|diff|patch)$/i;

const extension = (path: string): string => path.slice(path.lastIndexOf(".") + 1).toLowerCase();

const kindOf = (file: Schemas["ArtifactView"]): "image" | "text" | null => {
  if (IMAGES[extension(file.path)]) return file.size <= IMAGE_BYTES_MAX ? "image" : null;
  return TEXTS.test(file.path) || !file.path.slice(file.path.lastIndexOf("/") + 1).includes(".") ? "text" : null;
};

/** Per task the files of the accepted attempt, else of the newest one that has any. */
function filesOf(tasks: Schemas["TaskView"][]): Schemas["ArtifactView"][] {
  return tasks.flatMap((task) => {
    const accepted = task.attempts.find((one) => one.attempt === task.accepted_attempt && !one.duplicate);
    const chosen = accepted ?? task.attempts.findLast((one) => one.artifacts.length > 0);
    return (chosen?.artifacts ?? []).map((file) => ({ ...file, task: task.index, attempt: chosen?.attempt ?? 1 }));
  });
}

export function Files({ job, tasks }: { job: Schemas["JobView"]; tasks: Schemas["TaskView"][] }) {
  const t = useT();
  const format = useFormat();
  const [looked, setLooked] = useState<Schemas["ArtifactView"] | null>(null);
  const files = filesOf(tasks);
  const over = isOver(job.state);
  return (
    <Section title={over ? t("files.title") : t("files.running")} count={files.length}>
      {files.length === 0 && <p className={parts["hint"]}>{over ? t("files.none") : t("files.noneYet")}</p>}
      {files.length > 0 && (
        <ul className={parts["sheet"]}>
          {files.slice(0, FILES_MAX).map((file) => (
            <li key={`${file.task} ${file.path}`} className={css["file"]}>
              <a href={artifactUrl(job.id, file.path, file.task ?? 0, file.attempt ?? 1)} download={file.path.slice(file.path.lastIndexOf("/") + 1)}>
                <span className="only-read">{t("files.download")} </span>
                <bdi dir="ltr">{file.path}</bdi>
              </a>
              <div>
                <span>
                  {job.array && `${t("job.task")} ${format.number(file.task ?? 0)} · `}
                  {format.bytes(file.size)}
                </span>
                {kindOf(file) && (
                  <Button look="quiet" onPress={() => setLooked(file)}>
                    {t("files.preview")}
                    <span className="only-read">
                      {" "}
                      <bdi dir="ltr">{file.path}</bdi>
                    </span>
                  </Button>
                )}
              </div>
            </li>
          ))}
        </ul>
      )}
      {files.length > FILES_MAX && <p className={parts["hint"]}>{t("files.more", { count: format.number(files.length - FILES_MAX) })}</p>}
      {looked && (
        <Dialog title={looked.path} onClose={() => setLooked(null)}>
          <Preview job={job.id} file={looked} />
          <div className={parts["actions"]}>
            <Button onPress={() => setLooked(null)}>{t("files.close")}</Button>
          </div>
        </Dialog>
      )}
    </Section>
  );
}

function Preview({ job, file }: { job: string; file: Schemas["ArtifactView"] }) {
  const t = useT();
  const kind = kindOf(file);
  const { data, error } = useQuery({
    queryKey: ["artifact", file.blob],
    staleTime: Infinity,
    queryFn: async ({ signal }) => {
      const headers: Record<string, string> = kind === "text" && file.size > PREVIEW_BYTES ? { range: `bytes=0-${PREVIEW_BYTES - 1}` } : {};
      const response = await ask(artifactUrl(job, file.path, file.task ?? 0, file.attempt ?? 1), { signal, headers });
      return response.blob();
    },
  });
  if (error) return <Problem error={error} />;
  if (!data) return <Loading />;
  return (
    <div className={css["preview"]} tabIndex={0} role="group" aria-label={t("files.content")}>
      {kind === "image" ? <Picture bytes={data} file={file} /> : <TextOf bytes={data} file={file} />}
    </div>
  );
}

function Picture({ bytes, file }: { bytes: Blob; file: Schemas["ArtifactView"] }) {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([bytes], { type: IMAGES[extension(file.path)] ?? "" }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [bytes, file.path]);
  return url ? <img src={url} alt={file.path} /> : null;
}

function TextOf({ bytes, file }: { bytes: Blob; file: Schemas["ArtifactView"] }) {
  const t = useT();
  const { data: text } = useQuery({ queryKey: ["artifact", file.blob, "text"], queryFn: () => bytes.text() });
  if (text === undefined) return <Loading />;
  const isCut = file.size > PREVIEW_BYTES;
  return (
    <>
      {/\.[ct]sv$/i.test(file.path) ? <Table text={text} separator={file.path.endsWith(".tsv") ? "\t" : ","} /> : <pre dir="auto">{shaped(text, file.path, isCut)}</pre>}
      {isCut && <p className={parts["hint"]}>{t("files.cut")}</p>}
    </>
  );
}

function shaped(text: string, path: string, isCut: boolean): string {
  if (!path.endsWith(".json") || isCut) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const TABLE_ROWS = 500;

/** Rows of RFC 4180: cells may be quoted and then hold separators, quotes and line breaks. */
export function cells(text: string, separator: string): string[][] {
  const rows: string[][] = [[]];
  let cell = "";
  let isQuoted = false;
  const push = () => {
    rows.at(-1)?.push(cell);
    cell = "";
  };
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (isQuoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else isQuoted = false;
    } else if (character === '"' && cell === "") isQuoted = true;
    else if (character === separator) push();
    else if (character === "\n") {
      push();
      rows.push([]);
    } else if (character !== "\r") cell += character;
  }
  push();
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}

function Table({ text, separator }: { text: string; separator: string }) {
  const [head, ...rows] = cells(text, separator);
  return (
    <table className={parts["table"]}>
      <thead>
        <tr>
          {(head ?? []).map((cell, index) => (
            <th key={index}>
              <Name>{cell}</Name>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.slice(0, TABLE_ROWS).map((row, index) => (
          <tr key={index}>
            {row.map((cell, column) => (
              <td key={column}>
                <Name>{cell}</Name>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
