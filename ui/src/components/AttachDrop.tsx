/** While files are dragged over the window: where they can be dropped. Dropped beside it, they would replace the page. */
import { useEffect, useState } from "preact/hooks";
import type { Uploads } from "../uploads";
import { ClipIcon } from "./Icons";

export function AttachDrop({ uploads, onDropped }: { uploads: Uploads; onDropped: () => void }) {
  const [over, setOver] = useState(false);

  useEffect(() => {
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const onOver = (event: DragEvent) => {
      if (!event.dataTransfer || !hasFiles(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      setOver(true);
    };
    const onLeave = (event: DragEvent) => {
      // To somewhere else in the page it comes with a place, out of the window with none.
      if (event.relatedTarget === null) setOver(false);
    };
    const onDrop = (event: DragEvent) => {
      if (!event.dataTransfer || !hasFiles(event)) return;
      event.preventDefault();
      setOver(false);
      uploads.add([...event.dataTransfer.files]);
      onDropped();
    };
    addEventListener("dragover", onOver);
    addEventListener("dragleave", onLeave);
    addEventListener("drop", onDrop);
    return () => {
      removeEventListener("dragover", onOver);
      removeEventListener("dragleave", onLeave);
      removeEventListener("drop", onDrop);
    };
  }, [uploads, onDropped]);

  return over ? (
    <div class="attach-drop">
      <ClipIcon /> Drop files to send them with your message
    </div>
  ) : null;
}
