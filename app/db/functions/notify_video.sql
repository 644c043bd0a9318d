-- Notifies every process of a changed video (`app/db/listener.py`): requests that wait for its status or progress, and
-- the streams of its project, also of a deletion. A notice of progress alone ends in `/progress`: streams pace it.
-- Never of an insert: a notice makes a commit wait for all others that have one, and creates must not.
create or replace function gateway_notify_video() returns trigger language plpgsql as $$
declare
  same_state boolean := old.status = new.status and old.deleted_at is not distinct from new.deleted_at;
begin
  if old.status <> new.status or old.progress <> new.progress then
    perform pg_notify('gateway_videos', new.id);
  end if;
  perform pg_notify(
    'gateway_projects', new.project_id || '/' || new.id || case when same_state then '/progress' else '' end
  );
  return null;
end $$;

create or replace trigger notify_video after update on videos for each row
when (
  old.status is distinct from new.status or old.progress is distinct from new.progress
  or old.deleted_at is distinct from new.deleted_at
)
execute function gateway_notify_video();
