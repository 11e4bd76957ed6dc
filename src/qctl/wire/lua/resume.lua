-- Resume a queue. Wire format 5.20, 10.2. All ready jobs move to wait, those of the paused list run next;
-- then the flag is cleared, workers are woken and an event is written. With many jobs in both lists this
-- takes several calls. The flag is cleared last: if the caller dies half way, the queue is still paused and
-- anybody can resume it. A running queue never has jobs in a list that no worker reads.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] prioritized   KEYS[5] delayed
-- KEYS[6] marker   KEYS[7] events   KEYS[8] active   KEYS[9] qctl's pause note
-- ARGV[1] "" to resume it no matter who paused it; an owner to resume only that owner's pause
-- ARGV[2] how many jobs this call moves at most
-- ARGV[3] "force" to tell a drain at work on the queue that it shall stop; else ""
--
-- Answers {word, jobs in the paused list before, id of the event or ""}: "resumed", "running" (it was not
-- paused), "others" (the pause is not the owner's, or somebody else has paused the queue since; only the
-- owner's note is deleted), "more" (call again).
--@include markers
--@include events
--@include notes
--@include merge_lists
--@include overtaken

local holder = ARGV[1] ~= "" and holder_at(KEYS[9]) or {}
if ARGV[1] ~= "" and holder.owner ~= ARGV[1] then
  return {"others", 0, ""}
end
-- A key of another type fails here, before anything is written.
redis.call("LLEN", KEYS[2])
redis.call("ZCARD", KEYS[5])
redis.call("ZCARD", KEYS[6])
redis.call("XLEN", KEYS[7])
redis.call("LLEN", KEYS[8])

local in_paused = redis.call("LLEN", KEYS[3])
local is_paused = redis.call("HEXISTS", KEYS[1], "paused") == 1
if is_paused and is_overtaken(KEYS[7], holder) then
  redis.call("DEL", KEYS[9])
  return {"others", 0, ""}
end
local merged = merge_ready(KEYS[2], KEYS[3], tonumber(ARGV[2]), is_paused)
if not merged then
  return {"more", in_paused, ""}
elseif merged == KEYS[3] then
  redis.call("RENAME", KEYS[3], KEYS[2])
end

redis.call("HDEL", KEYS[1], "paused")
redis.call("DEL", KEYS[9])
if not is_blocked(KEYS[1], KEYS[8]) then
  if redis.call("EXISTS", KEYS[2], KEYS[4]) > 0 then
    mark_base(KEYS[6])
  else
    mark_delayed(KEYS[6], KEYS[5])
  end
end
if not is_paused and ARGV[1] ~= "" then
  return {"running", in_paused, ""}
end
-- Also if it was running: listeners hear that somebody wants it to run, as with BullMQ.
local event
if ARGV[3] == "force" then
  -- The drain cannot see it from the note if somebody else has paused the queue since.
  event = emit(KEYS[7], KEYS[1], "event", "resumed", "qctl", "force")
else
  event = emit(KEYS[7], KEYS[1], "event", "resumed")
end
return {is_paused and "resumed" or "running", in_paused, event}
