-- Resume a queue. Wire format 5.20, 10.2. All ready jobs move to wait, where those of the paused list run next;
-- then the flag is cleared, workers are woken and an event is written. With many jobs in both lists this
-- takes several calls. The flag is cleared last: if the caller dies half way, the queue is still paused and
-- anybody can resume it. A running queue never has jobs in a list that no worker reads.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] prioritized   KEYS[5] delayed
-- KEYS[6] marker   KEYS[7] events   KEYS[8] active   KEYS[9] qctl's pause note
-- ARGV[1] "" to resume it no matter who paused it; an owner to resume only that owner's pause
-- ARGV[2] how many jobs this call moves at most
-- ARGV[3] "force" to make a drain of the queue stop; else ""
--
-- Answers {word, jobs in the paused list before, id of the event or ""}: "resumed", "running" (it was not
-- paused), "others" (the pause is not the owner's, or somebody else has paused the queue since; only the
-- owner's note is deleted), "more" (call again).
--@include markers
--@include events
--@include notes
--@include merge_lists
--@include overtaken

local meta, wait, paused, prioritized, delayed, marker, events, active, note = unpack(KEYS)
local owner, max_moved, force = unpack(ARGV)

local holder = owner ~= "" and holder_at(note) or {}
if owner ~= "" and holder.owner ~= owner then
  return {"others", 0, ""}
end
-- A key of another type fails here, before anything is written.
redis.call("LLEN", wait)
redis.call("ZCARD", delayed)
redis.call("ZCARD", marker)
redis.call("XLEN", events)
redis.call("LLEN", active)

local in_paused = redis.call("LLEN", paused)
local is_paused = redis.call("HEXISTS", meta, "paused") == 1
if is_paused and is_overtaken(events, holder) then
  redis.call("DEL", note)
  return {"others", 0, ""}
end
local merged = merge_ready(wait, paused, tonumber(max_moved), is_paused)
if not merged then
  return {"more", in_paused, ""}
elseif merged == paused then
  redis.call("RENAME", paused, wait)
end

redis.call("HDEL", meta, "paused")
redis.call("DEL", note)
if not is_blocked(meta, active) then
  if redis.call("EXISTS", wait, prioritized) > 0 then
    mark_base(marker)
  else
    mark_delayed(marker, delayed)
  end
end
if not is_paused and owner ~= "" then
  return {"running", in_paused, ""}
end
-- Also if the queue was running: listeners hear that somebody wants it to run, as with BullMQ.
local event
if force == "force" then
  -- The note does not show the drain that it must stop, if somebody else has paused the queue since.
  event = emit(events, meta, "event", "resumed", "qctl", "force")
else
  event = emit(events, meta, "event", "resumed")
end
return {is_paused and "resumed" or "running", in_paused, event}
