-- Pause a queue the way its own clients do, so that a resume by any of them finds every job: for BullMQ 6
-- set the flag; for older versions also move ready jobs to the paused list. Wire format 5.20, 10.2.
--
-- A queue that is already paused keeps its owner, but jobs that were left in wait move to the paused list
-- if that list is used. With many jobs in both lists this takes several calls. The note is written before
-- the flag, and the flag before any job is moved: if the caller dies half way, the queue is paused and its
-- note says by whom. A running queue never has jobs in a list that no worker reads.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"   KEYS[2] meta
-- KEYS[3] qctl's pause note
-- ARGV[1] the note: who pauses, as JSON   ARGV[2] its owner
-- ARGV[3] "claim" to make the pause ours even if a drain has paused the queue; "take over" to do so only
--         if nobody else has paused or resumed the queue since; "again" to pause a queue that was resumed,
--         but only if the note still is ours; else ""
-- ARGV[4] "list" to use the paused list whatever the version of the last Queue object; else ""
-- ARGV[5] how many jobs this call moves at most
--
-- Answers {word, id of the event}: "paused" (by this call), "ours" (by an earlier call of ours, which wrote
-- the event), "others" (by somebody else), "resumed" (somebody resumed it and deleted our note; nothing was
-- written), "more" (call again).
--@include pausing

local base, meta, note = unpack(KEYS)
local holder_json, owner, mode, layout, max_moved = unpack(ARGV)

-- Whether the pause of a drain becomes ours.
local function is_claimed(holder)
  if holder.verb ~= "drain" and holder.verb ~= "restart" then
    return false
  end
  return mode == "claim" or (mode == "take over" and not is_overtaken(base, holder))
end

-- Moves ready jobs to where a pause keeps them. Answers whether all of them have been moved.
local function place_ready()
  if layout == "" and redis.call("EXISTS", base .. "paused") == 0 and is_flag_enough(base) then
    return true
  end
  local merged = merge_ready(base, tonumber(max_moved), true)
  if merged == "wait" and redis.call("EXISTS", base .. "wait") == 1 then
    redis.call("RENAME", base .. "wait", base .. "paused")
  end
  return merged ~= nil
end

-- A key of another type fails here, before anything is written.
redis.call("LLEN", base .. "wait")
redis.call("LLEN", base .. "paused")
redis.call("ZCARD", base .. "marker")
redis.call("XLEN", base .. "events")

local holder = decoded(redis.pcall("GET", note))
local is_ours = holder.owner == owner
if redis.call("HEXISTS", meta, "paused") == 1 then
  if not place_ready() then
    return {"more", ""}
  elseif is_ours and holder.event then
    return {"ours", holder.event}
  elseif not is_ours and not is_claimed(holder) then
    if mode == "claim" then
      -- Listeners hear that somebody wants it paused, as with BullMQ.
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
if not place_ready() then
  return {"more", ""}
end
local event = emit(base, "paused")
redis.call("SET", note, string.sub(holder_json, 1, -2) .. ',"event":"' .. event .. '"}')
return {"paused", event}
