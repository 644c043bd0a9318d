-- Refuses UPDATE and DELETE on the ledger: it is append-only.
create or replace function gateway_ledger_only_grows() returns trigger language plpgsql as $$
begin
  raise exception 'the ledger is only ever added to';
end $$;

create or replace trigger only_grows before update or delete on ledger for each row
execute function gateway_ledger_only_grows();
