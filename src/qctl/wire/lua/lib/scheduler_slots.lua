-- When a scheduler's next job is due, and how that job is made (wire format 6.2, 6.5).
--@include store_job

-- Answers when the next job is due. All times in ms. prev: the due time before, or nil; start: no job is due
-- earlier, or nil. Answers the due time and the offset within the grid of every. Missed times are skipped.
local function next_slot(prev, every, now, offset, start)
  local slot
  if prev then
    slot = prev + every
    if slot < now then
      slot = math.floor(now / every) * every + offset
      slot = slot <= now and slot + every or slot
    end
  elseif start then
    slot = math.max(start, now)
  elseif offset > 0 then
    slot = math.floor(now / every) * every + offset
    slot = slot <= now and slot + every or slot
  else
    slot = now
  end
  slot = math.floor(slot)
  return slot, offset ~= 0 and math.floor(offset) or slot - math.floor(slot / every) * every
end

local function iteration_id(scheduler_id, slot)
  return "repeat:" .. scheduler_id .. ":" .. string.format("%.0f", slot)
end

-- opts: JSON without the last brace; the fields that depend on the time are added here. is_cron: also add
-- prevMillis. Answers id and delay in ms, as text.
local function store_iteration(base, scheduler_id, slot, now, name, data, opts, priority, lifo, is_cron)
  local id, slot_text = iteration_id(scheduler_id, slot), string.format("%.0f", slot)
  local now_text = string.format("%.0f", now)
  local delay = string.format("%.0f", math.max(slot - now, 0))
  local timed = ',"jobId":' .. cjson.encode(id) .. ',"delay":' .. delay
    .. ',"timestamp":' .. now_text
  if is_cron then
    timed = timed .. ',"prevMillis":' .. slot_text
  end
  local job = {id = id, name = name, data = data, opts = opts .. timed .. "}",
    timestamp = now_text, delay = delay, priority = priority, rjk = scheduler_id}
  redis.call("INCR", base .. "id")
  store_job(base, job)
  enqueue_stored(base, job, lifo)
  return id, delay
end
