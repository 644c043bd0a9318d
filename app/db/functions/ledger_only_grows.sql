-- Refuses changes of the ledger: entries are added, never changed or deleted.
create or replace function gateway_ledger_only_grows() returns trigger language plpgsql as $$
begin
  raise exception 'the ledger is only ever added to';
end $$;

create or replace trigger only_grows before update or delete on ledger for each row
execute function gateway_ledger_only_grows();
