/** What went wrong, in the server's words; nothing where nothing did. */
export function Problem({ words }: { words: string | null }) {
  return words === null ? null : (
    <p class="problem" role="alert">
      {words}
    </p>
  );
}
