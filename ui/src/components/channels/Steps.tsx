/** What a person does at the vendor, step by step; addresses in it lead there. */
import { withAddresses } from "../../channels";

export function Steps({ steps }: { steps: string[] }) {
  return (
    <ol class="guide">
      {steps.map((step) => (
        <li key={step}>
          {withAddresses(step).map((part, index) =>
            index % 2 === 0 ? (
              part
            ) : (
              <a key={part} href={part} target="_blank" rel="noopener noreferrer">
                {part.replace("https://", "")}
              </a>
            ),
          )}
        </li>
      ))}
    </ol>
  );
}
