-- Refuses a job beyond the concurrent-jobs limit of its key. Raises VG429 with `allowed` as JSON detail.
create or replace function gateway_count_jobs() returns trigger language plpgsql as $$
declare
  allowed integer;
  running integer;
begin
  select concurrent_jobs into allowed from keys where id = new.key_id;
  if allowed is not null then
    perform pg_advisory_xact_lock(hashtextextended('gateway jobs ' || new.key_id, 0));
    select count(*) into running from videos where key_id = new.key_id and ended_at is null;
    if running > allowed then
      raise exception 'too many jobs' using errcode = 'VG429', detail = json_build_object('allowed', allowed);
    end if;
  end if;
  return null;
end $$;

create or replace trigger count_jobs after insert on videos for each row when (new.key_id like 'key\_%')
execute function gateway_count_jobs();
