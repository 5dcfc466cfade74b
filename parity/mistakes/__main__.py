from parity.mistakes.catalogue import page

print(page())
