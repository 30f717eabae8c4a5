/** The files of a message: images to look at, all else to download. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { isImage, isShown } from "../attachments";
import { size } from "../format";
import type { Attachment } from "../types";
import { previewOf } from "../uploads";
import { DownIcon, FileIcon, PictureIcon } from "./Icons";

export function AttachedFiles({ files }: { files: readonly Attachment[] }) {
  const pictures = files.filter(isShown);
  const others = files.filter((file) => !isShown(file));
  return (
    <>
      {pictures.length > 0 && (
        <ul class={`attached ${pictures.length > 1 ? "many" : ""}`} aria-label="Images">
          {pictures.map((file) => (
            <li key={file.id}>
              <Picture file={file} />
            </li>
          ))}
        </ul>
      )}
      {others.length > 0 && (
        <ul class="attached" aria-label="Files">
          {others.map((file) => (
            <li key={file.id}>
              <Card file={file} />
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function Picture({ file }: { file: Attachment }) {
  const [broken, setBroken] = useState(false);
  const [tiny, setTiny] = useState(false);
  if (broken) return <Card file={file} />;
  return (
    <a class="attached-picture" href={api.attachmentUrl(file.id)} target="_blank" rel="noopener noreferrer">
      <img
        src={previewOf(file.id) ?? api.attachmentUrl(file.id)}
        alt={file.name}
        title={file.name}
        loading="lazy"
        decoding="async"
        class={tiny ? "tiny" : ""}
        onLoad={({ currentTarget: image }) => setTiny(image.naturalWidth < image.clientWidth)}
        onError={() => setBroken(true)}
      />
    </a>
  );
}

function Card({ file }: { file: Attachment }) {
  return (
    <a
      class="attached-card"
      href={api.attachmentUrl(file.id)}
      download={file.name}
      aria-label={`Download ${file.name}, ${size(file.size)}`}
    >
      <span class="attach-thumb">{isImage(file.media_type) ? <PictureIcon /> : <FileIcon />}</span>
      <span class="attach-facts">
        <span class="attach-name" title={file.name}>
          {file.name}
        </span>
        <span class="muted">{size(file.size)}</span>
      </span>
      <DownIcon />
    </a>
  );
}
