/** Times and numbers in words for people. Pure. */

/** "4 s", "3 min", "2 h", "5 days". */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** The hour for what is less than a day away, else the date with it. */
export function moment(time: string | null, now: number): string {
  const parsed = time === null ? Number.NaN : Date.parse(time);
  if (Number.isNaN(parsed)) return "";
  const date = new Date(parsed);
  const near = Math.abs(now - parsed) < 24 * 3_600_000;
  return near
    ? date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** "512 bytes", "3.4 MB". */
export function size(bytes: number): string {
  if (bytes < 1024) return count(bytes, "byte", "bytes");
  const units = ["KB", "MB", "GB", "TB"];
  const step = Math.min(units.length, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 1 : 0 })} ${units[step - 1]}`;
}

export function count(value: number, one: string, many: string): string {
  return `${value.toLocaleString()} ${value === 1 ? one : many}`;
}
