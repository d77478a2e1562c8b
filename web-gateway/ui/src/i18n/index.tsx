// Languages: the words, the direction, and how numbers, times and sizes are written.

import { createContext, type ReactNode, useContext, useMemo, useState } from "react";
import { createIntl, createIntlCache, type IntlShape, RawIntlProvider, useIntl } from "react-intl";

import arabic from "./ar.json";
import english from "./en.json";

export type Language = "en" | "ar";
export type MessageId = keyof typeof english;

const messages: Record<Language, Record<MessageId, string>> = { en: english, ar: arabic };
/** Months as they are called in Iraq and the Levant, digits as they are written there. */
const locales: Record<Language, string> = { en: "en-GB", ar: "ar-IQ-u-nu-arab" };

const caches = { en: createIntlCache(), ar: createIntlCache() };

export function intlOf(language: Language): IntlShape {
  return createIntl({ locale: locales[language], messages: messages[language] }, caches[language]);
}

const LanguageContext = createContext<{ language: Language; choose: (language: Language) => void } | null>(null);

const shown = (): Language => (document.documentElement.lang === "ar" ? "ar" : "en");

export function LanguageProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<Language>(shown);
  const intl = useMemo(() => intlOf(language), [language]);
  const value = useMemo(
    () => ({
      language,
      choose: (next: Language) => {
        document.documentElement.lang = next;
        document.documentElement.dir = next === "ar" ? "rtl" : "ltr";
        keep("v6.language", next);
        setLanguage(next);
      },
    }),
    [language],
  );
  return (
    <LanguageContext value={value}>
      <RawIntlProvider value={intl}>{children}</RawIntlProvider>
    </LanguageContext>
  );
}

export function useLanguage(): { language: Language; choose: (language: Language) => void } {
  const value = useContext(LanguageContext);
  if (!value) throw new Error("there is no LanguageProvider around this");
  return value;
}

/** Remembers a choice of this browser; where it keeps nothing the choice lasts as long as the page. */
export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Private windows may keep nothing.
  }
}

export type Words = Record<string, string | number>;

/** Messages by their id. */
export function useT(): (id: MessageId, values?: Words) => string {
  const intl = useIntl();
  return (id, values) => intl.formatMessage({ id }, values);
}
