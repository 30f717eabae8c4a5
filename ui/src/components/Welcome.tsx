/** What an empty conversation shows: for a newcomer what this is, for everybody something to begin with. */
import { conversations } from "../conversations";

const SUGGESTIONS = ["hello", "write hello.txt", "what can you do?"];

export function Welcome({ onPick }: { onPick: (text: string) => void }) {
  const newcomer = conversations.value?.length === 0;
  return (
    <div class="welcome">
      <img src="/favicon.svg" alt="" width="64" height="64" />
      <h2>{newcomer ? "Meet your agent" : "What shall we do?"}</h2>
      {newcomer && (
        <>
          <p>
            This is an AI agent of your own. It works in a sandbox on this server, with a folder of files that
            no other user can see.
          </p>
          <p>
            It sleeps while you do not need it and costs nothing then. Write something: it wakes, which takes
            some ten seconds, and answers here.
          </p>
        </>
      )}
      <ul class="chips" aria-label="Suggestions">
        {SUGGESTIONS.map((text) => (
          <li key={text}>
            <button type="button" class="chip" onClick={() => onPick(text)}>
              {text}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
