-- What all scripts share. Kinds: r rate (one arrival time), s slots (sorted set of leases), b budget (one counter per period).
-- The memory store does the same in Rust; a change here is a change there.

local NEVER = 9007199254740991
local SLOT_WAIT = 1000000
local PERIOD_SLACK_MS = 259200000
-- Redis removes a key by real time, this much later than it means nothing any more.
local SLACK_MS = 10000
-- What has expired is removed only so much later: a clock that is set back finds it again.
local CLOCK_BACK = 600000000
-- More slots than any limit may have: no answer from another question can make a script run for seconds.
local MOST_SLOTS = 100000

-- Numbers as Redis should keep them: Lua writes 1.79e15 otherwise.
local function whole(number)
    return string.format('%.0f', number)
end

local function keep_budget(key, value, period_end)
    if period_end == NEVER then
        redis.call('SET', key, whole(value))
    else
        redis.call('SET', key, whole(value), 'PXAT', whole(math.floor(period_end / 1000) + PERIOD_SLACK_MS))
    end
end

local function keep_arrival(key, arrival)
    if arrival > now then
        redis.call('SET', key, whole(arrival), 'PX', whole(math.ceil((arrival - now) / 1000) + SLACK_MS))
    else
        redis.call('DEL', key)
    end
end

-- What is left of a limit, and how long until it is whole.
local function look(kind, key, most, furthest, period_end)
    if kind == 'r' then
        local arrival = tonumber(redis.call('GET', key)) or 0
        arrival = math.min(math.max(arrival, now), now + furthest)
        return most - (arrival - now), arrival - now
    elseif kind == 's' then
        return most - redis.call('ZCOUNT', key, '(' .. whole(now), '+inf'), 0
    end
    return most - (tonumber(redis.call('GET', key)) or 0), period_end - now
end

-- Adds a difference to a rate or a budget.
local function correct(kind, key, delta, furthest, period_end)
    if delta == 0 or kind == 's' then
        return
    end
    local old = tonumber(redis.call('GET', key)) or 0
    if kind == 'r' then
        old = math.min(old, now + furthest)
        if delta > 0 then
            keep_arrival(key, math.min(math.max(old, now) + delta, now + furthest))
        else
            keep_arrival(key, old + delta)
        end
    else
        keep_budget(key, math.max(old + delta, 0), period_end)
    end
end

-- Takes slots number 1 to count for a holder; those that it has already get the new end. A lease ends with its reservation at the latest,
-- so that an id that is used anew after that finds nothing of its old slots.
local function lease(key, holder, count, until_time, lease_time)
    for slot = 1, math.min(count, MOST_SLOTS) do
        redis.call('ZADD', key, whole(until_time), holder .. ':' .. slot)
    end
    redis.call('PEXPIRE', key, whole(math.ceil(lease_time / 1000) + SLACK_MS))
end

-- Lets go of the slots number from+1 to upto of a holder.
local function free(key, holder, from, upto)
    for slot = from + 1, math.min(upto, MOST_SLOTS) do
        redis.call('ZREM', key, holder .. ':' .. slot)
    end
end

-- A reservation is `<until>|<cost>,<cost>,...` or, once settled, `<until>|done`. Returns its costs, or 'done', or nil.
local function held_by(key)
    local value = redis.call('GET', key)
    if not value then
        return nil
    end
    local until_time, list = string.match(value, '^(%d+)|(.*)$')
    if tonumber(until_time) <= now then
        return nil
    end
    if list == 'done' then
        return 'done', tonumber(until_time)
    end
    local costs = {}
    for cost in string.gmatch(list, '%d+') do
        costs[#costs + 1] = tonumber(cost)
    end
    return costs, tonumber(until_time)
end

local function hold(key, until_time, content)
    local px = math.max(math.ceil((until_time - now) / 1000), 0) + SLACK_MS
    redis.call('SET', key, whole(until_time) .. '|' .. content, 'PX', whole(px))
end

local function list_of(costs)
    local texts = {}
    for index, cost in ipairs(costs) do
        texts[index] = whole(cost)
    end
    return table.concat(texts, ',')
end
