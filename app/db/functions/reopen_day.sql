-- Reopens a closed day of usage in the transaction that writes something for it: a late settlement, a decision of the
-- operator, another end of a job. Entries of the day itself take no lock: a day is closed an hour after its end. The lock
-- is shared by writers, and exclusive for the worker that sums the day (`app/accounts/closed_days.py`), so that no entry is
-- missed: either the worker sees it, or its writer sees the mark. Deferred to the commit: what follows needs no other lock.
create or replace function gateway_reopen_day(day_ date) returns void language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(1970561381, day_ - date '2000-01-01');
  if exists (select from closed_days where day = day_) then
    delete from closed_days where day = day_;
    delete from usage_days where day = day_;
  end if;
end $$;

create or replace function gateway_entry_reopens_day() returns trigger language plpgsql as $$
begin
  perform gateway_reopen_day(new.day);
  return null;
end $$;

create or replace function gateway_end_reopens_day() returns trigger language plpgsql as $$
begin
  perform gateway_reopen_day((old.created_at at time zone 'UTC')::date);
  return null;
end $$;

drop trigger if exists reopen_day on ledger;
create constraint trigger reopen_day after insert on ledger deferrable initially deferred for each row
when (new.kind not in ('reserve', 'credit') and new.day < (new.created_at at time zone 'UTC')::date)
execute function gateway_entry_reopens_day();

drop trigger if exists reopen_day on videos;
create constraint trigger reopen_day after update on videos deferrable initially deferred for each row
when (old.ended_at is not null
  and (old.ended_at, old.error_code, old.provider) is distinct from (new.ended_at, new.error_code, new.provider))
execute function gateway_end_reopens_day();
