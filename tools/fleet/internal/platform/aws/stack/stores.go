package stack

import (
	"maps"
	"slices"
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/s3"
	"github.com/awslabs/goformation/v7/cloudformation/secretsmanager"
	"github.com/awslabs/goformation/v7/cloudformation/sqs"

	"a3os.app/deploy/blueprint"
)

// stores are the set's buckets; the secrets of a store are made by who writes them.
func (s *set) stores() {
	for name, store := range sorted(s.blueprint.Stores) {
		if store.Kind == blueprint.StoreBlob {
			s.objectStore(name)
		}
	}
}

// objectStore is a bucket that is the set's alone, in which keys begin with the tenant's id all the same.
func (s *set) objectStore(name string) {
	id := logical("store", name)
	arn := bucketARN(s.bucket(name))
	s.add(id, s.privateBucket(s.bucket(name)))
	statements := closed([]string{"s3:*"}, []string{arn, arn + "/*"}, s.rolesOf(func(u use) bool {
		return slices.ContainsFunc(u.resources, func(r string) bool { return r == arn || r == arn+"/"+s.name()+"/*" })
	}))
	s.add(id+"Policy", &s3.BucketPolicy{Bucket: ref(id), PolicyDocument: document(append(statements, onlyUnderKey(arn)...)...)})
	s.Outputs[id] = Output{Description: "The bucket of store " + name, Value: ref(id)}
}

// Keeping is a blueprint with the stores of objects besides its own that a tenant's stack has, by the stack's outputs, and the names of these, in order. A release
// before the one that added a store is gone back to so: the bucket stays, with its policy and what is in it, open to fleet's own roles and to no component.
func Keeping(p Place, b *blueprint.Blueprint, tenant string, outputs map[string]string) (*blueprint.Blueprint, []string) {
	begins, ends := p.Buckets(tenant)
	out, kept := *b, []string(nil)
	out.Stores = maps.Clone(b.Stores)
	for id, bucket := range sorted(outputs) {
		name, is := strings.CutPrefix(bucket, begins)
		name, whole := strings.CutSuffix(name, ends)
		if _, has := b.Stores[name]; has || !is || !whole || name == "" || id != logical("store", name) {
			continue
		}
		if out.Stores == nil {
			out.Stores = map[string]blueprint.Store{}
		}
		out.Stores[name], kept = blueprint.Store{Kind: blueprint.StoreBlob}, append(kept, name)
	}
	return &out, kept
}

// copies is the bucket of what the plane's components have to have after their tasks ended.
const copies = "copies"

// copied is the object of a component's copy.
func (s *set) copied(c blueprint.Component) string { return c.Name + "/" + c.Needs.Copied }

// copyOf is that a component reads and replaces its copy, and no other object.
func (s *set) copyOf(c blueprint.Component) use {
	bucket := bucketARN(s.bucket(copies))
	return use{role: s.taskRole(c.Name), sid: "KeepItsCopy", actions: []string{"s3:GetObject", "s3:PutObject"}, resources: []string{bucket + "/" + s.copied(c)}, encrypts: true,
		service: "s3", context: when{"kms:EncryptionContext:aws:s3:arn": bucket}}
}

// copyStore is the bucket, which nobody reaches but who keeps something there, and the administrators.
func (s *set) copyStore() {
	name := s.bucket(copies)
	arn, keepers := bucketARN(name), []string{ref(administrator)}
	for _, c := range s.blueprint.Components {
		if c.Needs.Copied != "" {
			keepers = append(keepers, s.taskRole(c.Name))
		}
	}
	s.add("Copies", s.privateBucket(name))
	s.add("CopiesPolicy", &s3.BucketPolicy{Bucket: ref("Copies"), PolicyDocument: document(append(closed([]string{"s3:*"}, []string{arn, arn + "/*"}, keepers), onlyUnderKey(arn)...)...)})
}

// rolesOf are the roles with a use of a kind, and the provisioner.
func (s *set) rolesOf(is func(use) bool) []string {
	roles := []string{s.place.Provisioner()}
	for _, u := range s.allUses() {
		if is(u) && !slices.Contains(roles, u.role) {
			roles = append(roles, u.role)
		}
	}
	return roles
}

// Figures of the queue. A slice of a run works for a minute at most, and keeps its message as long as it does.
const (
	visibleAfter = 90
	// deliveries is the most that SQS counts: the driver's own bound on tries comes first, and puts a message on the record with its reason.
	// What is delivered this often was not even that.
	deliveries  = 1000
	mostMessage = 1 << 20
	keptSeconds = 4 * 24 * 3600
	deadSeconds = 14 * 24 * 3600
)

// messages are the set's queue, and that of what could not be handled.
func (s *set) messages() {
	if s.blueprint.Database == nil || s.blueprint.Database.Queue == "" {
		return
	}
	key := attribute(keyID, "Arn")
	dead := s.add("DeadLetters", &sqs.Queue{QueueName: new(s.deadLetters()), KmsMasterKeyId: new(key), MessageRetentionPeriod: new(deadSeconds), MaximumMessageSize: new(mostMessage), Tags: s.tags(),
		RedriveAllowPolicy: map[string]any{"redrivePermission": "byQueue", "sourceQueueArns": []string{s.queueARN(s.queue())}}})
	queue := s.add("Queue", &sqs.Queue{QueueName: new(s.queue()), KmsMasterKeyId: new(key), MessageRetentionPeriod: new(keptSeconds), MaximumMessageSize: new(mostMessage), Tags: s.tags(),
		VisibilityTimeout: new(visibleAfter), ReceiveMessageWaitTimeSeconds: new(20),
		RedrivePolicy: map[string]any{"deadLetterTargetArn": attribute(dead, "Arn"), "maxReceiveCount": deliveries}})
	for id, name := range map[string]string{queue: s.queue(), dead: s.deadLetters()} {
		arn := s.queueARN(name)
		roles := s.rolesOf(func(u use) bool { return slices.Contains(u.resources, arn) })
		s.add(id+"Policy", &sqs.QueuePolicy{Queues: []string{ref(id)}, PolicyDocument: document(closed([]string{"sqs:*"}, []string{arn}, roles)...)})
	}
	s.Outputs[QueueOutput] = Output{Description: "The set's queue", Value: ref(queue)}
	s.deepQueue(dead)
}

// secret is one that fleet fills in; what a component is given, or what fleet alone keeps. Who deploys its stack may delete it again.
func (s *set) secret(id, name, description string, readers ...string) string {
	s.add(id, &secretsmanager.Secret{Name: new(name), Description: new(description), KmsKeyId: new(attribute(keyID, "Arn")), Tags: s.tags()})
	s.add(id+"Policy", &secretsmanager.ResourcePolicy{SecretId: ref(id), BlockPublicPolicy: new(true),
		ResourcePolicy: document(closed([]string{"secretsmanager:*"}, []string{"*"}, slices.Compact(append(append([]string{s.place.Provisioner()}, s.makers()...), readers...)))...)})
	return id
}
