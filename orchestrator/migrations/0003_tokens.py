"""Tokens with a name and limits, in a table of our own; those of knox's table move over and go on working."""

import django.core.validators
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models


def move(apps, schema_editor):
    """Empty knox's table into ours."""
    old, new = apps.get_model("knox", "AuthToken"), apps.get_model("orchestrator", "Token")
    for row in old.objects.all():
        moved = new.objects.create(
            digest=row.digest, token_key=row.token_key, user_id=row.user_id, expiry=row.expiry, name="sign-in"
        )
        new.objects.filter(pk=moved.pk).update(created=row.created)
    old.objects.all().delete()


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0002_cancel_single_devices'),
        ('knox', '0009_extend_authtoken_field'),
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
