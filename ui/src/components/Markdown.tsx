/** An answer as Markdown, drawn block by block so that what is complete stays untouched while the rest streams. */
import { useEffect, useMemo, useRef } from "preact/hooks";
import { type Block, blocksOf, htmlOf } from "../markdown";
import { memo } from "./memo";

const COPIED_MS = 1500;

interface Props {
  text: string;
  /** More of it is on the way. */
  growing: boolean;
}

export function Markdown({ text, growing }: Props) {
  const blocks = useMemo(() => blocksOf(text), [text]);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: only listens to the copy buttons inside, which keys press too
    // biome-ignore lint/a11y/noStaticElementInteractions: the same
    <div class={growing ? "markdown growing" : "markdown"} onClick={onClick}>
      {blocks.map((block, index) => (
        <MarkdownBlock key={index} block={block} settled={!growing || index < blocks.length - 1} />
      ))}
    </div>
  );
}

interface BlockProps {
  block: Block;
  settled: boolean;
}

const MarkdownBlock = memo(DrawnBlock, (before, now) => {
  return before.block.source === now.block.source && before.settled === now.settled;
});

function DrawnBlock({ block, settled }: BlockProps) {
  const element = useRef<HTMLDivElement>(null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the source is all that the HTML depends on
  const html = useMemo(() => htmlOf(block), [block.source]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: new HTML has lost its colours
  useEffect(() => {
    if (settled && element.current) void colour(element.current);
  }, [html, settled]);
  // The one place where HTML that we did not write ourselves gets in: htmlOf sanitises it.
  return <div class="block" ref={element} dangerouslySetInnerHTML={{ __html: html }} />;
}

async function colour(element: HTMLElement): Promise<void> {
  const codes = element.querySelectorAll<HTMLElement>("pre > code:not(.coloured)");
  if (codes.length === 0) return;
  const { highlighted } = await import("../highlight");
  for (const code of codes) {
    const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
    const html = highlighted(code.textContent ?? "", language.toLowerCase());
    if (html !== null) code.innerHTML = html;
    code.classList.add("coloured");
  }
}

function onClick(event: MouseEvent): void {
  const button = event.target instanceof Element ? event.target.closest("button.copy-code") : null;
  const code = button?.closest(".code-block")?.querySelector("code");
  if (button && code) void copy(button, (code.textContent ?? "").replace(/\n$/, ""));
}

async function copy(button: Element, text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => {
    button.textContent = "Copy";
  }, COPIED_MS);
}
