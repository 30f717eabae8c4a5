/** A modal dialog on the browser's own: it keeps the focus inside, Escape or a click beside it closes it. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { CloseIcon } from "./Icons";
import { Problem } from "./Problem";

interface Props {
  title: string;
  /** "box" in the middle, "side" along the right edge, "drawer" along the left one. */
  shape?: "box" | "side" | "drawer";
  onClose: () => void;
  children: ComponentChildren;
}

export function Dialog({ title, shape = "box", onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const over = useRef(false);
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => {
      over.current = true;
      // The browser gives the focus back to where it was: at once, so that it is not taken from who goes on elsewhere.
      shown?.close();
    };
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape is the browser's own way to close a dialog by key
    <dialog
      ref={dialog}
      class={`dialog ${shape}`}
      aria-label={title}
      onClose={() => {
        if (!over.current) onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current) onClose();
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2>{title}</h2>
          <button type="button" class="icon-button" aria-label="Close" onClick={onClose}>
            <CloseIcon />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  text: string;
  action: string;
  problem: string | null;
  onConfirm: () => void;
  onClose: () => void;
}

export function Confirm({ title, text, action, problem, onConfirm, onClose }: ConfirmProps) {
  return (
    <Dialog title={title} onClose={onClose}>
      <p>{text}</p>
      <Problem words={problem} />
      <div class="dialog-actions">
        <button type="button" class="button" onClick={onClose}>
          Cancel
        </button>
        <button type="button" class="button danger" onClick={onConfirm}>
          {action}
        </button>
      </div>
    </Dialog>
  );
}
