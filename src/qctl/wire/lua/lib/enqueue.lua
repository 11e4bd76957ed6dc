-- Puts a job where it runs next: the tail of wait (or of the paused list), or the front of its priority
-- class (primitive P7, front-of-class variant).
--@include paused_list

local function enqueue_next(meta_key, wait_key, paused_key, prioritized_key, id, priority)
  if priority > 0 then
    redis.call("ZADD", prioritized_key, string.format("%.0f", priority * 4294967296), id)
  elseif is_paused_list_used(meta_key, wait_key, paused_key) then
    redis.call("RPUSH", paused_key, id)
  else
    redis.call("RPUSH", wait_key, id)
  end
end

-- A key of a wrong type fails here, before anything is written. For scripts whose KEYS[2] to KEYS[7]
-- are wait, paused, prioritized, active, marker and events.
local function require_types()
  for _, i in ipairs({2, 3, 5}) do
    redis.call("LLEN", KEYS[i])
  end
  redis.call("ZCARD", KEYS[4])
  redis.call("ZCARD", KEYS[6])
  redis.call("XLEN", KEYS[7])
end
