-- Pause a queue the way its own clients do, so that a resume by any of them finds every job: for BullMQ 6 set
-- the flag (field paused of meta); for older versions also move ready jobs to the paused list. Wire format
-- 5.20, 10.2. If the queue is already paused and uses that list, ready jobs in wait still move to the list.
--
-- qctl's note is written before the flag, and the flag before any job is moved. So if the caller dies half way,
-- the queue is paused and the note names the owner. A running queue never has jobs that no worker sees.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"   KEYS[2] meta
-- KEYS[3] qctl's pause note, a key that names who paused the queue
-- ARGV[1] the note: who pauses, as JSON   ARGV[2] its owner
-- ARGV[3] "claim" to make the pause of a drain ours; "take over" to do the same only if nobody has paused or
--         resumed the queue after the drain paused it; "again" to pause a queue that was resumed, but only if
--         the note is still ours; else ""
-- ARGV[4] "list" to move ready jobs to the paused list even if the last Queue object is of BullMQ 6; else ""
-- ARGV[5] how many jobs this call moves at most
--
-- Answers {word, event}: event is the id of our pause's event, or "". The words: "paused" (by this call);
-- "ours" (by an earlier call of ours); "others" (by another owner or client, and the pause stays theirs);
-- "resumed" (in the mode "again": the queue was resumed and our note is gone; nothing was written); "more" (call
-- again).
--@include pausing

local base, meta, note = unpack(KEYS)
local holder_json, owner, mode, layout, max_moved = unpack(ARGV)

-- Whether the pause in this note becomes ours. Only the pause of a drain or a restart can become ours: see
-- ARGV[3].
local function is_claimed(holder)
  if holder.verb ~= "drain" and holder.verb ~= "restart" then
    return false
  end
  return mode == "claim" or (mode == "take over" and not is_overtaken(base, holder))
end

-- Moves ready jobs to the list that a paused queue uses. Answers whether all of them are there now.
local function move_ready()
  if layout == "" and redis.call("EXISTS", base .. "paused") == 0 and is_flag_enough(base) then
    return true
  end
  local merged = merge_ready(base, tonumber(max_moved), true)
  if merged == "wait" and redis.call("EXISTS", base .. "wait") == 1 then
    redis.call("RENAME", base .. "wait", base .. "paused")
  end
  return merged ~= nil
end

-- If a key has a wrong type, the script fails here, before anything is written.
redis.call("LLEN", base .. "wait")
redis.call("LLEN", base .. "paused")
redis.call("ZCARD", base .. "marker")
redis.call("XLEN", base .. "events")

local holder = decoded(redis.pcall("GET", note))
local is_ours = holder.owner == owner
if redis.call("HEXISTS", meta, "paused") == 1 then
  if not move_ready() then
    return {"more", ""}
  elseif is_ours and holder.event then
    return {"ours", holder.event}
  elseif not is_ours and not is_claimed(holder) then
    if mode == "claim" then
      -- The command qctl pause uses "claim". Like BullMQ's pause, this command writes an event even if the
      -- queue is already paused.
      emit(base, "paused")
    end
    return {"others", ""}
  end
elseif mode == "again" and not is_ours then
  return {"resumed", ""}
end

redis.call("SET", note, holder_json)
redis.call("HSET", meta, "paused", "1")
redis.call("DEL", base .. "marker")
if not move_ready() then
  return {"more", ""}
end
local event = emit(base, "paused")
redis.call("SET", note, string.sub(holder_json, 1, -2) .. ',"event":"' .. event .. '"}')
return {"paused", event}
