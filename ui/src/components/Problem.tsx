import { WarningIcon } from "./Icons";

/** What went wrong, in the server's words; nothing where nothing did. */
export function Problem({ words, icon = false }: { words: string | null; icon?: boolean }) {
  return words === null ? null : (
    <p class="problem" role="alert">
      {icon ? (
        <>
          <WarningIcon />
          <span>{words}</span>
        </>
      ) : (
        words
      )}
    </p>
  );
}
