-- Wakes requests that wait for a video: a notice for each change of its status or progress (`app/db/listener.py`).
create or replace function gateway_notify_video() returns trigger language plpgsql as $$
begin
  perform pg_notify('gateway_videos', new.id);
  return null;
end $$;

create or replace trigger notify_video after update on videos for each row
when (old.status is distinct from new.status or old.progress is distinct from new.progress)
execute function gateway_notify_video();
