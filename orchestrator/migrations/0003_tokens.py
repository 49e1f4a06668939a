"""Tokens with a name and limits, in a table of our own; those of knox's table move over and go on working."""

from datetime import UTC

import django.core.validators
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models
from django.utils.dateparse import parse_datetime


def _moment(value):
    """SQLite gives a time as text, in UTC."""
    moment = parse_datetime(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def move(apps, schema_editor):
    """Empty knox's table into ours, and drop it: it refers to the users, and nobody looks after it any more."""
    connection, tokens = schema_editor.connection, apps.get_model("orchestrator", "Token")
    if "knox_authtoken" not in connection.introspection.table_names():
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT digest, token_key, user_id, created, expiry FROM knox_authtoken")
        for digest, token_key, user, created, expiry in cursor.fetchall():
            moved = tokens.objects.create(
                digest=digest, token_key=token_key, user_id=user, expiry=_moment(expiry), name="sign-in"
            )
            tokens.objects.filter(pk=moved.pk).update(created=_moment(created))
        cursor.execute("DROP TABLE knox_authtoken")


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0002_cancel_single_devices'),
    ]

    operations = [
        migrations.CreateModel(
            name='Token',
            fields=[
                ('token_key', models.CharField(editable=False, max_length=25)),
                ('created', models.DateTimeField(auto_now_add=True)),
                ('expiry', models.DateTimeField(blank=True, null=True)),
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('digest', models.CharField(editable=False, max_length=128, unique=True)),
                ('name', models.CharField(max_length=64, validators=[django.core.validators.ProhibitNullCharactersValidator()])),
                ('read_only', models.BooleanField(default=False, help_text='Whether it may change nothing.')),
                ('last_used', models.DateTimeField(editable=False, null=True)),
                ('organization', models.ForeignKey(blank=True, help_text='The only organization that exists for it; empty: all those of its user.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='tokens', to='orchestrator.organization')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='auth_token_set', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-created', 'id'),
            },
        ),
        # Backwards they are dropped, and their users sign in again: knox's table can't hold the limits.
        migrations.RunPython(move, migrations.RunPython.noop),
    ]
