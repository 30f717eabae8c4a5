/** Smaller copies of images, made in the browser, of what it can decode. */
import { isImage, MAX_IMAGE, nameOfCopy } from "./attachments";

/** A model sees no more of a larger one. */
const LONGEST_SIDE_PX = 2576;
/** As wide as a thumbnail is shown, on a screen with two dots for each pixel. */
const PREVIEW_PX = 480;
const QUALITY = 0.85;

/** A copy that the agent can look at; null: none could be made. */
export async function shrink(file: File): Promise<File | null> {
  // WebP keeps what is transparent; where the browser cannot write it, that becomes white.
  const wanted = file.type === "image/jpeg" ? "image/jpeg" : "image/webp";
  let copy = await scaled(file, LONGEST_SIDE_PX, wanted);
  if (copy && copy.type !== wanted) copy = await scaled(file, LONGEST_SIDE_PX, "image/jpeg");
  if (!copy || copy.size > MAX_IMAGE) return null;
  return new File([copy], nameOfCopy(file.name, copy.type), { type: copy.type });
}

/** A small copy as a `data:` URL, which the content security policy allows, unlike `blob:`; null: not an image. */
export async function preview(file: File): Promise<string | null> {
  if (!isImage(file.type)) return null;
  const copy = await scaled(file, PREVIEW_PX, "image/webp");
  return copy && dataUrl(copy);
}

async function scaled(file: File, longestSide: number, type: string): Promise<Blob | null> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const factor = Math.min(1, longestSide / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  const context = canvas.getContext("2d");
  if (context) {
    if (type === "image/jpeg") {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
    }
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  }
  bitmap.close();
  return context && new Promise((resolve) => canvas.toBlob(resolve, type, QUALITY));
}

function dataUrl(blob: Blob): Promise<string | null> {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => resolve(null);
    reader.readAsDataURL(blob);
  });
}
