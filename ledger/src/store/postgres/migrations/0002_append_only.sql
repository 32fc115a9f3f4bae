-- A second line behind the service role's missing rights: not even the owner changes what is only ever added to,
-- unless it drops these triggers first. For PostgreSQL itself: other engines lack triggers or this language.

CREATE FUNCTION gristmill.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of gristmill.% are never changed or removed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gristmill.entries
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gristmill.account_entries
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gristmill.named_entries
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gristmill.tile_hashes
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON gristmill.checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON gristmill.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON gristmill.channels
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON gristmill.head
    FOR EACH STATEMENT EXECUTE FUNCTION gristmill.refuse_change();
