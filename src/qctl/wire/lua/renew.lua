-- Renew the lock of a job that runs. Wire format 5.7, but for what the stalled check has marked.
--
-- KEYS[1] the job's lock, and no other key: see working.renew
-- ARGV[1] lock TTL, ms   ARGV[2] lock token
--
-- Answers 1, or 0 when the lock is lost: gone, or another's.

if redis.call("GET", KEYS[1]) == ARGV[2] then
  return redis.call("PEXPIRE", KEYS[1], ARGV[1])
end
return 0
