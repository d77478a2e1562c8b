// The few parts that every page is made of, over one library of primitives.

import { type ReactNode, useState } from "react";
import {
  Button as AriaButton,
  type ButtonProps,
  Dialog as AriaDialog,
  FieldError,
  Heading,
  Input,
  Label,
  Modal,
  ModalOverlay,
  Text,
  TextArea,
  TextField,
} from "react-aria-components";

import { Refused, Unreachable } from "../api/client";
import { useFormat } from "../format";
import { type MessageId, useT } from "../i18n";
import css from "./ui.module.css";

export { css };

export const classes = (...names: (string | false | null | undefined)[]): string => names.filter(Boolean).join(" ");

/** Marks the one of several links that is on; the router's own mark knows paths only. */
export const here = (isOn: boolean): { "aria-current": "true" | undefined } => ({ "aria-current": isOn ? "true" : undefined });

export function Button({ look, ...rest }: ButtonProps & { look?: "main" | "danger" | "quiet" }) {
  return <AriaButton {...rest} className={classes(css["button"], look && css[look])} />;
}

/** A name, an id, a path, a title: never mixed with the direction of what stands around it. */
export function Name({ children }: { children: ReactNode }) {
  return <bdi>{children}</bdi>;
}

/** Code, ids and addresses: left to right in every language. */
export function Id({ children, title }: { children: ReactNode; title?: string }) {
  return (
    <bdi dir="ltr" className={css["id"]} title={title}>
      {children}
    </bdi>
  );
}

export function Code({ children }: { children: ReactNode }) {
  return (
    <code className={css["code"]} dir="ltr">
      {children}
    </code>
  );
}

export function Time({ at }: { at: string }) {
  const format = useFormat();
  return (
    <time dateTime={at} title={at}>
      {format.time(at)}
    </time>
  );
}

export function Section({ title, count, more, children }: { title: string; count?: number | undefined; more?: ReactNode; children: ReactNode }) {
  const format = useFormat();
  return (
    <section className={css["section"]}>
      <div className={css["head"]}>
        <h2>{title}</h2>
        {count !== undefined && <small>{format.number(count)}</small>}
        {more}
      </div>
      {children}
    </section>
  );
}

export function Sheet({ children, as: Part = "div" }: { children: ReactNode; as?: "div" | "ul" | "ol" }) {
  return <Part className={css["sheet"]}>{children}</Part>;
}

export function Facts({ facts }: { facts: ([string, ReactNode] | null | false | undefined)[] }) {
  return (
    <dl className={css["facts"]}>
      {facts.flatMap((fact) =>
        fact ? [
          <div key={fact[0]}>
            <dt>{fact[0]}</dt>
            <dd>{fact[1]}</dd>
          </div>,
        ] : [],
      )}
    </dl>
  );
}

export function Field({
  label,
  value,
  onChange,
  onBlur,
  hint,
  error,
  lines,
  type,
  list,
  required,
  autoFocus,
  mono,
}: {
  label: string;
  value: string;
  onChange: (value: string) => void;
  onBlur?: () => void;
  hint?: ReactNode;
  error?: string | undefined;
  lines?: number;
  type?: "text" | "number" | "search";
  list?: string[];
  required?: boolean;
  autoFocus?: boolean;
  mono?: boolean;
}) {
  const [listId] = useState(() => `list-${Math.random().toString(36).slice(2)}`);
  const direction = mono ? "ltr" : "auto";
  return (
    <TextField
      className={css["field"] ?? ""}
      value={value}
      onChange={onChange}
      isInvalid={error !== undefined}
      isRequired={required ?? false}
      validationBehavior="aria"
      {...(onBlur ? { onBlur } : {})}
    >
      <Label>{label}</Label>
      {lines ? (
        <TextArea rows={lines} dir={direction} className={mono ? "mono" : ""} />
      ) : (
        <Input type={type ?? "text"} dir={direction} autoFocus={autoFocus ?? false} className={mono ? "mono" : ""} list={list ? listId : undefined} autoComplete="off" />
      )}
      {list && (
        <datalist id={listId}>
          {list.map((word) => (
            <option key={word} value={word} />
          ))}
        </datalist>
      )}
      {hint && (
        <Text slot="description" className={css["hint"] ?? ""}>
          {hint}
        </Text>
      )}
      <FieldError className={css["error"] ?? ""}>{error}</FieldError>
    </TextField>
  );
}

/** A question over the page; Escape and a click beside it answer no. */
export function Dialog({ title, children, onClose }: { title: string; children: ReactNode; onClose: () => void }) {
  return (
    <ModalOverlay className={css["overlay"] ?? ""} isOpen isDismissable onOpenChange={(open) => !open && onClose()}>
      <Modal className={css["modal"] ?? ""}>
        <AriaDialog className={css["dialog"] ?? ""}>
          <Heading slot="title" level={2}>
            {title}
          </Heading>
          {children}
        </AriaDialog>
      </Modal>
    </ModalOverlay>
  );
}

/** What would be here, and what makes it. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={classes(css["sheet"], css["note"])}>
      <strong>{title}</strong>
      {children}
    </div>
  );
}

/** What went wrong, to whom, and what to do next. */
export function Problem({ error, again }: { error: unknown; again?: () => void }) {
  const t = useT();
  const silent = error instanceof Unreachable;
  const words = error instanceof Refused ? error.message : error instanceof Error ? error.message : String(error);
  return (
    <div className={classes(css["sheet"], css["note"], css["problem"])} role="alert">
      <strong>{silent ? t("error.unreachable") : refusalTitle(error, t)}</strong>
      <p dir="auto">{silent ? t("error.unreachableMend") : words}</p>
      {again && <Button onPress={again}>{t("error.again")}</Button>}
    </div>
  );
}

const TITLES: Record<string, MessageId> = {
  not_found: "error.notFound",
  ambiguous: "error.ambiguous",
  bad_request: "error.badRequest",
  not_allowed: "error.notAllowed",
  foreign_origin: "error.notAllowed",
  conflict: "error.conflict",
  too_large: "error.tooLarge",
  unavailable: "error.unavailable",
};

function refusalTitle(error: unknown, t: (id: MessageId) => string): string {
  const id = error instanceof Refused ? TITLES[error.code] : undefined;
  return t(id ?? "error.failed");
}

export function Loading() {
  return <div className={css["skeleton"]} aria-hidden="true" />;
}
