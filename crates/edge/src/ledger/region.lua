-- Takes a batch of records of one edge over: exactly once, because the edge's place in its journal moves in the same step.
--
-- KEYS[1] places, KEYS[2] stream of records, KEYS[3] set of owners, KEYS[4 ..] keys of sums and of records, by index
-- ARGV[1] journal, ARGV[2] place before the batch, ARGV[3] place after it, ARGV[4] longest stream, ARGV[5] seconds that a record is kept
-- ARGV[6] number of records, ARGV[7] number of owners, then the owners
-- then per record: index of its key, its bytes
-- then per row of sums: index of its key, seconds it is kept (0: for ever), field prefix, what it is over, number of counters,
-- then per counter: name, amount
local place = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if place ~= ARGV[2] then return place end
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  redis.call('SADD', KEYS[3], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('SET', KEYS[tonumber(ARGV[at])], ARGV[at + 1], 'EX', ARGV[5])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'r', ARGV[at + 1])
  at = at + 2
end
while at <= #ARGV do
  local key, keep, prefix = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1]), ARGV[at + 2]
  redis.call('HSETNX', key, prefix, ARGV[at + 3])
  local counters = tonumber(ARGV[at + 4])
  at = at + 5
  for _ = 1, counters do
    redis.call('HINCRBY', key, prefix .. ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  if keep > 0 then redis.call('EXPIRE', key, keep) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ARGV[3]
