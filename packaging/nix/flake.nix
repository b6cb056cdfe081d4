# nix run 'path:packaging/nix' -- --help
{
  description = "Pigeonhole channels of the Katzenpost mixnet, mounted as files";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  outputs = { self, nixpkgs }:
    let
      each = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
    in {
      packages = each (system:
        let pkgs = nixpkgs.legacyPackages.${system};
        in {
          default = pkgs.rustPlatform.buildRustPackage {
            pname = "pigeonfs";
            version = "0.1.0";
            src = ../..;
            cargoLock.lockFile = ../../Cargo.lock;
            # The tests need /dev/fuse and the clients of others.
            doCheck = false;
            nativeBuildInputs = [ pkgs.installShellFiles ];
            # SQLCipher takes its ciphers from libcrypto.
            buildInputs = [ pkgs.openssl ];
            postInstall = ''
              for shell in bash zsh fish; do $out/bin/pigeonfs completions $shell >pigeonfs.$shell; done
              installShellCompletion pigeonfs.bash pigeonfs.zsh pigeonfs.fish
              for verb in "" mount send receive wait; do
                $out/bin/pigeonfs help --man $verb >pigeonfs''${verb:+-$verb}.1
                installManPage pigeonfs''${verb:+-$verb}.1
              done
              install -Dm644 packaging/systemd/pigeonfs.service -t $out/lib/systemd/user
            '';
          };
        });
    };
}
