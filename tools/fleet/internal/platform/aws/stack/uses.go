package stack

import (
	"slices"

	"a3os.app/deploy/blueprint"
)

// use is one thing that a role does with what the set's key encrypts. It makes a statement of the role's policy, and one of the key's.
type use struct {
	role string
	// sid is its name in policies.
	sid string
	// actions on resources; under is what has to hold besides, by operator.
	actions, resources []string
	under              map[string]when
	// encrypts says that it writes: who only reads needs no new data keys.
	encrypts bool
	// service of AWS's by which the key is used, and what that says it is used for.
	service string
	context when
	// wraps says that the key itself is what is called, and nothing by it.
	wraps bool
}

// uses are all of a component's: what its task does, and what ECS does to start it.
func (s *set) uses(c blueprint.Component) []use {
	task := s.taskRole(c.Name)
	out := []use{s.started(c.Name)}
	for name, store := range sorted(s.blueprint.Stores) {
		writes, reads := slices.Contains(c.Needs.Stores, name), slices.Contains(c.Needs.ReadsStores, name)
		if !writes && !reads {
			continue
		}
		switch store.Kind {
		case blueprint.StoreBlob:
			out = append(out, s.objects(task, name, writes)...)
		case blueprint.StoreSecret:
			out = append(out, s.credentials(task, name, writes))
			if writes {
				out = append(out, s.storeMark(task, name))
			}
		}
	}
	if c.Needs.KeyService {
		out = append(out, s.wrap(task))
	}
	if c.Needs.Copied != "" {
		out = append(out, s.copyOf(c))
	}
	if len(c.Needs.Database) > 0 {
		out = append(out, s.logIn(task, c.Needs.Database))
	}
	if s.sends(c) {
		out = append(out, s.message(task, "SendMessages", true, "sqs:SendMessage", "sqs:ListQueueTags"))
	}
	if s.receives(c) {
		out = append(out, s.message(task, "ReceiveMessages", false, "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:ListQueueTags"))
	}
	return out
}

// wrap is that a component wraps keys of its own with the set's, each for the tenant by name: KMS unwraps none under another's.
func (s *set) wrap(role string) use {
	return use{role: role, sid: "WrapItsKeys", wraps: true, context: when{"kms:EncryptionContext:tenant": s.name()}}
}

// logIn is that a component makes tokens that it logs in to the database with, as roles of its own and no other. Those of a tenant's carry its id in
// their names, whichever server they are in; the plane's are called the same on each plane, and are those of its own server.
func (s *set) logIn(role string, as []string) use {
	u := use{role: role, sid: "LogInToTheDatabase", actions: []string{"rds-db:connect"}}
	for _, name := range as {
		if s.tenant == "" {
			u.resources = append(u.resources, fill(s.place.arn("rds-db", "dbuser:${"+databaseID+".DbiResourceId}/"+s.databaseRole(name))))
			continue
		}
		u.resources = append(u.resources, s.place.arn("rds-db", "dbuser:*/"+s.databaseRole(name)))
	}
	return u
}

// started is that ECS reads what a component is given, and nothing else of the set's.
func (s *set) started(component string) use {
	arn := s.secretARN(s.secretName(component))
	return use{role: s.startRole(component), sid: "ReadItsSecret", actions: []string{"secretsmanager:GetSecretValue"}, resources: []string{arn},
		service: "secretsmanager", context: when{"kms:EncryptionContext:SecretARN": arn}}
}

func (s *set) objects(role, store string, writes bool) []use {
	bucket := "arn:aws:s3:::" + s.bucket(store)
	inside := []string{bucket + "/" + s.name() + "/*"}
	context := when{"kms:EncryptionContext:aws:s3:arn": bucket}
	u := use{role: role, sid: logical("objects", store), actions: []string{"s3:GetObject"}, resources: inside, service: "s3", context: context}
	if writes {
		u.actions, u.encrypts = []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}, true
	}
	// Without the right to list, S3 says of what is not there that it is forbidden.
	list := use{role: role, sid: logical("list", store), actions: []string{"s3:ListBucket"}, resources: []string{bucket},
		under: map[string]when{"StringLike": {"s3:prefix": s.name() + "/*"}}}
	return []use{u, list}
}

// credentials are what the tenant's integrations log in with: who writes one can't read it back.
func (s *set) credentials(role, store string, writes bool) use {
	arn := s.storeSecrets(store)
	u := use{role: role, sid: logical("credentials", store), actions: []string{"secretsmanager:GetSecretValue"}, resources: []string{arn},
		service: "secretsmanager", context: when{"kms:EncryptionContext:SecretARN": arn}}
	if writes {
		u.actions, u.encrypts = []string{"secretsmanager:CreateSecret", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret", "secretsmanager:TagResource"}, true
		u.under = s.underItsKey()
	}
	return u
}

// underItsKey is of secrets under the set's key: one that was made under another would be outside of what shredding this one destroys.
func (s *set) underItsKey() map[string]when {
	return map[string]when{"StringEqualsIfExists": {"secretsmanager:KmsKeyArn": attribute(keyID, "Arn")}}
}

// storeMark is that who writes a store, and can't read what is in it, sees whose it is.
func (s *set) storeMark(role, store string) use {
	return use{role: role, sid: logical("mark", store), actions: []string{"secretsmanager:GetSecretValue"}, resources: []string{s.secretARN(s.path() + "store/" + store + "/MARK")}}
}

func (s *set) message(role, sid string, encrypts bool, actions ...string) use {
	arn := s.queueARN(s.queue())
	return use{role: role, sid: sid, actions: actions, resources: []string{arn}, encrypts: encrypts, service: "sqs", context: when{"kms:EncryptionContext:aws:sqs:arn": arn}}
}

// queued says that a component logs in to the queue; what half of an envelope's key it has, says what it does there.
func (s *set) queued(c blueprint.Component) bool {
	d := s.blueprint.Database
	return d != nil && d.Queue != "" && slices.ContainsFunc(c.Needs.Database, func(role string) bool { return slices.Contains(d.Roles[role].Schemas, d.Queue) })
}

func (s *set) sends(c blueprint.Component) bool { return s.queued(c) && s.hasEnvelope(c.Needs.Keys) }
func (s *set) receives(c blueprint.Component) bool {
	return s.queued(c) && s.hasEnvelope(c.Needs.PublicKeys)
}

func (s *set) hasEnvelope(keys []string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return s.blueprint.Keys[k].Kind == blueprint.KeyEnvelope })
}

// ofKey says that a use takes the set's key, by a service of AWS's or itself.
func (u use) ofKey() bool { return u.service != "" || u.wraps }

// statement is the role's own.
func (u use) statement() statement {
	st := allow(u.sid, u.actions, u.resources)
	for operator, w := range u.under {
		st = st.under(operator, w)
	}
	return st
}

// keyActions are what it takes of the key. A service of AWS's that writes reads its data key back, too.
func (u use) keyActions() []string {
	if u.wraps {
		return []string{"kms:Decrypt", "kms:Encrypt"}
	}
	if u.encrypts {
		return []string{"kms:Decrypt", "kms:GenerateDataKey"}
	}
	return []string{"kms:Decrypt"}
}

// keyUse is the statement of the key, of the role's policy with the key as its resource and of the key's own with `*`, which is the key.
func (s *set) keyUse(u use, resource string) statement {
	if u.wraps {
		return allow(u.sid, u.keyActions(), []string{resource}).under("StringEquals", u.context)
	}
	conditions := when{"kms:ViaService": s.place.service(u.service)}
	return allow(u.sid+"Key", u.keyActions(), []string{resource}).under("StringEquals", conditions).under("StringLike", u.context)
}
