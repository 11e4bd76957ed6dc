-- Resume a queue. Wire format 5.20, 10.2. First, all ready jobs move into one of the lists "wait" and "paused";
-- the jobs that were in "paused" run next. If both lists are long, this takes several calls. The last call renames
-- the list to "wait" if it is "paused", clears the flag (field "paused" of meta), wakes workers and writes an
-- event. If the caller dies before the last call, the queue is still paused, and any client can resume it. So a
-- running queue never has jobs in a list that no worker reads.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"   KEYS[2] meta
-- KEYS[3] qctl's pause note, a key that names who paused the queue
-- ARGV[1] "" to end any pause; an owner to end only the pause of this owner
-- ARGV[2] how many jobs this call moves at most
-- ARGV[3] "force" to make a drain of the queue stop; else ""
--
-- Answers {word, how many jobs the paused list had, id of the event or ""}. The words:
-- "resumed"
-- "running": the queue was not paused
-- "others": either the note has another owner, and nothing was changed; or a client has paused or resumed the
--   queue after the owner's pause, and only the note was deleted
-- "more": call again
--@include pausing

local base, meta, note = unpack(KEYS)
local owner, max_moved, force = unpack(ARGV)

local holder = owner ~= "" and decoded(redis.pcall("GET", note)) or {}
if owner ~= "" and holder.owner ~= owner then
  return {"others", 0, ""}
end
-- If a key has a wrong type, the script fails here, before anything is written.
redis.call("LLEN", base .. "wait")
redis.call("ZCARD", base .. "delayed")
redis.call("ZCARD", base .. "marker")
redis.call("XLEN", base .. "events")
redis.call("LLEN", base .. "active")

local in_paused = redis.call("LLEN", base .. "paused")
local is_paused = redis.call("HEXISTS", meta, "paused") == 1
if is_paused and is_overtaken(base, holder) then
  redis.call("DEL", note)
  return {"others", 0, ""}
end
local merged = merge_ready(base, tonumber(max_moved), is_paused)
if not merged then
  return {"more", in_paused, ""}
elseif merged == "paused" then
  redis.call("RENAME", base .. "paused", base .. "wait")
end

redis.call("HDEL", meta, "paused")
redis.call("DEL", note)
if not is_blocked(base) then
  if redis.call("EXISTS", base .. "wait", base .. "prioritized") > 0 then
    mark_ready(base)
  else
    mark_delayed(base)
  end
end
if not is_paused and owner ~= "" then
  return {"running", in_paused, ""}
end
-- As in BullMQ, the event is written even if the queue was not paused. The field qctl=force makes a drain of
-- the queue stop, even if the queue is paused again when the drain reads the event.
local marks = force == "force" and {"qctl", "force"} or {}
return {is_paused and "resumed" or "running", in_paused, emit(base, "resumed", unpack(marks))}
