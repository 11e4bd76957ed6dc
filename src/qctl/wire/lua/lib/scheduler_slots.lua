-- When a scheduler's next job is due, and how that job is made (wire format 6.2, 6.5). A slot is the time, in
-- epoch ms, when a job of a scheduler is due.
--@include store_job

-- Answers the slot of a scheduler's pending job, or nil if there is no such scheduler.
local function pending_slot(base, scheduler)
  return tonumber(redis.call("ZSCORE", base .. "repeat", scheduler) or "")
end

-- For a scheduler with an interval: answers the slot of the next job, and the offset. Each slot is a multiple of
-- `every`, plus the offset in ms. Missed slots are skipped.
-- every: the interval in ms. last: the previous slot, or nil. start: the earliest slot allowed, or nil.
local function next_slot(last, every, now, offset, start)
  local slot = last and last + every or start and math.max(start, now) or now
  if last and slot < now or not last and not start and offset > 0 then
    slot = math.floor(now / every) * every + offset
    slot = slot <= now and slot + every or slot
  end
  slot = math.floor(slot)
  return slot, offset ~= 0 and math.floor(offset) or slot - math.floor(slot / every) * every
end

local function iteration_id(scheduler, slot)
  return "repeat:" .. scheduler .. ":" .. string.format("%.0f", slot)
end

-- Answers the id of the stored job, and its delay in ms as text.
-- opts: JSON without the last brace, because the fields that depend on the time are added here. is_cron: whether
-- to add the field prevMillis, too.
local function store_iteration(base, scheduler, slot, now, name, data, opts, priority, lifo, is_cron)
  local id, slot_text = iteration_id(scheduler, slot), string.format("%.0f", slot)
  local now_text = string.format("%.0f", now)
  local delay = string.format("%.0f", math.max(slot - now, 0))
  local timed = ',"jobId":' .. cjson.encode(id) .. ',"delay":' .. delay
    .. ',"timestamp":' .. now_text
  if is_cron then
    timed = timed .. ',"prevMillis":' .. slot_text
  end
  local job = {id = id, name = name, data = data, opts = opts .. timed .. "}",
    timestamp = now_text, delay = delay, priority = priority, rjk = scheduler}
  redis.call("INCR", base .. "id")
  store_job(base, job)
  enqueue_stored(base, job, lifo)
  return id, delay
end
