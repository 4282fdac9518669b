// A person's name, in whatever script and direction it is written, of whatever length.
export function Name({ name, id }: { name: string | null; id: string }) {
  return (
    <bdi class="name" title={name ? `${name} (${id})` : id}>
      {name ?? id}
    </bdi>
  );
}
